// libcurl, loaded when the first URL is fetched: it brings some thirty libraries (TLS, Kerberos, LDAP), which
// every start would pay for in time and memory, and without it everything else still works. Any thread.
#pragma once

#include <curl/curl.h>

#include "base/status.h"

namespace fd {

struct CurlLibrary {
  decltype(&curl_easy_cleanup) easy_cleanup = nullptr;
  decltype(&curl_easy_getinfo) easy_getinfo = nullptr;
  decltype(&curl_easy_init) easy_init = nullptr;
  decltype(&curl_easy_setopt) easy_setopt = nullptr;
  decltype(&curl_easy_strerror) easy_strerror = nullptr;
  decltype(&curl_multi_add_handle) multi_add_handle = nullptr;
  decltype(&curl_multi_cleanup) multi_cleanup = nullptr;
  decltype(&curl_multi_info_read) multi_info_read = nullptr;
  decltype(&curl_multi_init) multi_init = nullptr;
  decltype(&curl_multi_perform) multi_perform = nullptr;
  decltype(&curl_multi_poll) multi_poll = nullptr;
  decltype(&curl_multi_remove_handle) multi_remove_handle = nullptr;
  decltype(&curl_multi_wakeup) multi_wakeup = nullptr;
  decltype(&curl_slist_append) slist_append = nullptr;
  decltype(&curl_slist_free_all) slist_free_all = nullptr;
  decltype(&curl_global_init) global_init = nullptr;
};

// The first call loads and initialises it, for the life of the process. An error says what to install.
Status LoadCurl();
// After LoadCurl was OK.
const CurlLibrary& Curl();

}  // namespace fd
