#include "server/multimodal/source/curl_library.h"

#include <dlfcn.h>

#include <type_traits>

#include "base/check.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr const char* kLibrary = "libcurl.so.4";
constexpr const char* kInstall =
    "; install it (Debian: apt-get install libcurl4), or send the bytes, for example "
    "data:image/png;base64,iVBORw0...";

struct Loaded {
  CurlLibrary functions;
  Status status;
};

Loaded Load() {
  Loaded loaded;
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    loaded.status =
        Unimplemented(StrCat("this server fetches no URLs: ", kLibrary, " cannot be loaded", kInstall));
    return loaded;
  }
  const auto find = [&](const char* name, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, name));
    if (*function == nullptr && loaded.status.ok()) {
      loaded.status = Unimplemented(StrCat("this server fetches no URLs: ", kLibrary, " has no ", name,
                                           ", 7.87 or newer is needed", kInstall));
    }
  };
  find("curl_easy_cleanup", &loaded.functions.easy_cleanup);
  find("curl_easy_getinfo", &loaded.functions.easy_getinfo);
  find("curl_easy_init", &loaded.functions.easy_init);
  find("curl_easy_setopt", &loaded.functions.easy_setopt);
  find("curl_easy_strerror", &loaded.functions.easy_strerror);
  find("curl_multi_add_handle", &loaded.functions.multi_add_handle);
  find("curl_multi_cleanup", &loaded.functions.multi_cleanup);
  find("curl_multi_info_read", &loaded.functions.multi_info_read);
  find("curl_multi_init", &loaded.functions.multi_init);
  find("curl_multi_perform", &loaded.functions.multi_perform);
  find("curl_multi_poll", &loaded.functions.multi_poll);
  find("curl_multi_remove_handle", &loaded.functions.multi_remove_handle);
  find("curl_multi_wakeup", &loaded.functions.multi_wakeup);
  find("curl_slist_append", &loaded.functions.slist_append);
  find("curl_slist_free_all", &loaded.functions.slist_free_all);
  find("curl_global_init", &loaded.functions.global_init);
  if (loaded.status.ok() && loaded.functions.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    loaded.status = Internal("libcurl cannot be initialised");
  }
  return loaded;
}

const Loaded& TheLibrary() {
  static const Loaded* loaded = new Loaded(Load());  // never destroyed: threads may still fetch at exit
  return *loaded;
}

}  // namespace

Status LoadCurl() { return TheLibrary().status; }

const CurlLibrary& Curl() {
  FD_CHECK(TheLibrary().status.ok());
  return TheLibrary().functions;
}

}  // namespace fd
