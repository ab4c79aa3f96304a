// What the keys and values of a page depend on, as values that can be compared and hashed. Pure functions.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "engine/plan/options.h"
#include "engine/plan/request.h"

namespace fd {

// Tokens of one page, or the first of them.
struct PageContent {
  // Where a token stands, and what stands in for its embedding.
  struct Place {
    int32_t t = 0, h = 0, w = 0;  // its position
    int32_t vision_expert = 0;
    Hash128 media;  // which output row of which encoded item; 0: its own embedding
    bool operator==(const Place&) const = default;
  };
  std::vector<int32_t> token_ids;
  // A page of text: positions ascend by one from this one on all axes, and there are no places.
  int32_t first_position = 0;
  std::vector<Place> places;  // else as many as tokens
};

// Tokens [begin, begin + count) of a request, of which `tokens` (prompt, then what was generated) are known.
// At most a page of them.
PageContent ContentOf(const GenerateRequest& request, const std::vector<int32_t>& tokens,
                      int64_t prompt_tokens, int64_t begin, int64_t count);

// Where all chains with this salt begin. Those of different salts share nothing.
Hash128 ChainRoot(std::string_view salt);
// Of a page, given that of the page before it (ChainRoot for the first): equal only when all tokens up to the
// end of this page are equal. Keyed, so that nobody can make two prompts collide.
Hash128 ChainHash(const Hash128& before, const PageContent& content);

// How many tokens are the same from the beginning on; also of a page of text and one with a picture further
// on.
int64_t EqualTokens(const PageContent& a, const PageContent& b);

}  // namespace fd
