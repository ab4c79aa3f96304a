// What a service manager that started us wants to know (sd_notify(3)), by datagram to $NOTIFY_SOCKET. Without
// that variable nothing happens. Any thread.
#pragma once

#include <string>

namespace fd {

// For example "READY=1\nSTATUS=serving"; false when there is nobody to tell.
bool NotifyService(const std::string& state);

}  // namespace fd
