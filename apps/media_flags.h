// The flags of media sources: what may be fetched or read for a request.
#pragma once

#include "flag_set.h"
#include "server/multimodal/source/media_source.h"

namespace fd {

// --no-media-fetch, --allowed-media-domains, --allowed-local-media-path, --media-max-redirects,
// --media-connect-timeout, --media-fetch-timeout, under their own title. A folder that is not there and a
// domain that is none are errors of Parse. The environment variable FASTDEPLOY_TEST_PUBLIC_ENDPOINTS
// ("127.0.0.1:8000,[::1]:8000") fills public_endpoints_for_tests, with a warning in the log.
void AddMediaPolicyFlags(FlagSet& flags, MediaPolicy* policy);

}  // namespace fd
