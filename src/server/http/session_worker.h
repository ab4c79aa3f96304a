// Session::OnWorker, for the files that use it. Internal to this folder.
#pragma once

#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <new>

#include "base/fault.h"
#include "base/log.h"
#include "server/http/session.h"

namespace fd {

template <typename T>
boost::asio::awaitable<StatusOr<T>> Session::OnWorker(const std::function<StatusOr<T>()>& work) {
  StatusOr<T> result = Internal("not done");
  co_await boost::asio::co_spawn(
      state_.workers,
      [&]() -> boost::asio::awaitable<void> {
        try {
          FaultBadAlloc(Fault::kParseAlloc);
          result = work();
        } catch (const std::bad_alloc&) {
          result = Unavailable("the server has no memory left for this request; try again later");
        } catch (const std::exception& e) {  // a library below, or memory
          LogError("preparing a request failed: ", e.what());
          result = Internal("the server failed while it read the request");
        }
        co_return;
      },
      boost::asio::use_awaitable);
  co_return result;
}

}  // namespace fd
