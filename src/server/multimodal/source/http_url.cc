#include "server/multimodal/source/http_url.h"

#include <algorithm>

#include "base/strings.h"
#include "server/multimodal/source/address_policy.h"
#include "server/multimodal/source/url_text.h"

namespace fd {
namespace {

constexpr size_t kMaxUrlBytes = 8192;
constexpr size_t kMaxHostBytes = 253;
constexpr size_t kMaxLabelBytes = 63;
constexpr std::string_view kExample = ", for example https://example.com/picture.png";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// What the C library would read as a number: "127", "0x7f", "017".
bool IsNumericLabel(const std::string& label) {
  if (label.starts_with("0x")) return true;
  return std::all_of(label.begin(), label.end(), IsDigit);
}

// host: lower case. The reason why it is no name, or empty.
std::string WhyNoName(std::string_view host) {
  if (host.empty()) return "has no host";
  if (host.size() > kMaxHostBytes)
    return StrCat("has a host of ", host.size(), " characters; a name has at most 253");
  for (char c : host) {
    if (static_cast<unsigned char>(c) >= 0x80)
      return "has a host with letters beyond ASCII; write the name in its xn-- form";
    const bool known = (c >= 'a' && c <= 'z') || IsDigit(c) || c == '-' || c == '_' || c == '.';
    if (!known) return StrCat("has ", PrintableByte(c), " in its host");
  }
  const std::vector<std::string> labels = Split(host, '.');
  for (const std::string& label : labels) {
    if (label.empty()) return "has an empty part between the dots of its host";
    if (label.size() > kMaxLabelBytes)
      return StrCat("has a part of ", label.size(), " characters in its host; a name allows 63");
  }
  if (IsNumericLabel(labels.back()) && !IsIpv4Text(host)) {
    return "has a host that is a number; an address is written as four decimal numbers";
  }
  return {};
}

Status Refuse(std::string_view why) { return InvalidArgument(StrCat("the media URL ", why, kExample)); }

StatusOr<int> ParsePort(std::string_view text, bool https) {
  if (text.empty()) return https ? 443 : 80;
  int port = 0;
  for (char c : text) {
    if (!IsDigit(c) || text.size() > 5) return Refuse("has a port that is no number from 1 to 65535");
    port = port * 10 + (c - '0');
  }
  if (port < 1 || port > 65535) return Refuse("has a port that is no number from 1 to 65535");
  if (port < 1024 && port != 80 && port != 443) {
    return Refuse(StrCat("has port ", port, "; media are fetched from ports 80, 443 and 1024 to 65535"));
  }
  return port;
}

// Letters beyond ASCII escaped; everything else was checked before.
std::string EscapeTarget(std::string_view target) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (char c : target) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

}  // namespace

std::string HttpUrl::ToString() const {
  return StrCat(https ? "https://" : "http://", is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "", ":", port,
                target);
}

StatusOr<HttpUrl> ParseHttpUrl(std::string_view text) {
  text = TrimUrlSpace(text);
  if (text.size() > kMaxUrlBytes) {
    return Refuse(StrCat("has ", text.size(), " characters; the limit is ", kMaxUrlBytes));
  }
  for (size_t i = 0; i < text.size(); ++i) {
    if (static_cast<unsigned char>(text[i]) <= ' ' || text[i] == 0x7f || text[i] == '\\') {
      return Refuse(
          StrCat("has ", PrintableByte(text[i]), " at character ", i, "; it must be percent-encoded"));
    }
  }
  HttpUrl url;
  const std::string scheme = SchemeOf(text);
  if (scheme != "http" && scheme != "https") return Refuse("begins with neither http:// nor https://");
  url.https = scheme == "https";
  text.remove_prefix(scheme.size() + 1);
  if (!text.starts_with("//")) return Refuse(StrCat("has no // after ", scheme, ":"));
  text.remove_prefix(2);
  text = text.substr(0, text.find('#'));
  const size_t end = text.find_first_of("/?");
  std::string_view authority = text.substr(0, end);
  std::string_view rest = end == std::string_view::npos ? std::string_view() : text.substr(end);

  if (authority.find('@') != std::string_view::npos) {
    return Refuse("has a user name; media are fetched without one");
  }
  std::string_view port;
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos) return Refuse("has '[' without ']' in its host");
    url.host = LowerAscii(authority.substr(1, close - 1));
    url.is_ipv6 = true;
    if (!IsIpv6Text(url.host)) return Refuse("has no IPv6 address between its brackets");
    std::string_view after = authority.substr(close + 1);
    if (!after.empty() && after[0] != ':') return Refuse("has text between ']' and its port");
    port = after.empty() ? after : after.substr(1);
  } else {
    const size_t colon = authority.find(':');
    url.host = LowerAscii(authority.substr(0, colon));
    port = colon == std::string_view::npos ? std::string_view() : authority.substr(colon + 1);
    if (url.host.ends_with('.')) url.host.pop_back();
    if (std::string why = WhyNoName(url.host); !why.empty()) return Refuse(why);
  }
  FD_ASSIGN_OR_RETURN(url.port, ParsePort(port, url.https));
  url.target = EscapeTarget(rest);
  if (!url.target.starts_with('/')) url.target.insert(0, "/");
  return url;
}

std::string ResolveReference(const HttpUrl& base, std::string_view location) {
  location = TrimUrlSpace(location);
  if (!SchemeOf(location).empty()) return std::string(location);
  if (location.starts_with("//")) return StrCat(base.https ? "https:" : "http:", location);
  HttpUrl origin = base;
  origin.target.clear();
  if (location.starts_with('/')) return origin.ToString() + std::string(location);
  std::string path = base.target.substr(0, base.target.find('?'));
  if (!location.empty() && location[0] != '?') path.resize(path.rfind('/') + 1);
  return StrCat(origin.ToString(), path, location);
}

StatusOr<std::string> ParseDomainPattern(std::string_view text) {
  constexpr std::string_view kForms =
      "; write example.com for one host or *.example.com for every host below it";
  std::string pattern = LowerAscii(TrimUrlSpace(text));
  std::string_view name = pattern;
  const bool wildcard = name.starts_with("*.");
  if (wildcard) name.remove_prefix(2);
  if (name.find_first_of(":/") != std::string_view::npos && !IsIpv6Text(name)) {
    return InvalidArgument(StrCat("'", pattern, "' is more than a host name", kForms));
  }
  if (name.find('*') != std::string_view::npos || name.empty()) {
    return InvalidArgument(StrCat("'", pattern, "' is no host name", kForms));
  }
  if (IsIpv6Text(name) && !wildcard) return pattern;
  if (std::string why = WhyNoName(name); !why.empty()) {
    return InvalidArgument(StrCat("'", pattern, "' ", why, kForms));
  }
  return pattern;
}

bool DomainIsAllowed(const HttpUrl& url, const std::vector<std::string>& patterns) {
  if (patterns.empty()) return true;
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    if (!pattern.starts_with("*.")) return url.host == pattern;
    const std::string_view suffix = std::string_view(pattern).substr(1);  // ".example.com"
    return url.host.size() > suffix.size() && url.host.ends_with(suffix);
  });
}

}  // namespace fd
