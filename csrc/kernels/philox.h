// Philox 4x32-10 (Salmon et al. 2011): random bits as a pure function of a key and a counter, so that a mask
// is the same on every device, for any number of threads, in forward and again in backward.
#pragma once
#include "host_device.h"

#include <cstdint>

namespace fusegen::philox {

// Which mask of a call: a word of the counter.
enum class Mask : uint32_t {
  state_dropout,
  candidate_dropout,
  zoneout_h,
  zoneout_c,
  weight_drop,
  discriminator
};

struct Words {
  uint32_t w[4];
};

FUSEGEN_HOST_DEVICE Words words(uint64_t key, Mask mask, uint32_t place, uint64_t block) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  Words c{
      {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), place, static_cast<uint32_t>(mask)}};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c.w[0], b = uint64_t{0xCD9E8D57} * c.w[2];
    c = {{static_cast<uint32_t>(b >> 32) ^ c.w[1] ^ k0, static_cast<uint32_t>(b),
          static_cast<uint32_t>(a >> 32) ^ c.w[3] ^ k1, static_cast<uint32_t>(a)}};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

// A row of n elements has kGroup blocks for each 4 * kGroup elements: a vector of up to kGroup neighbours is
// one word of as many blocks, on every instruction set.
constexpr int64_t kGroup = 16;

FUSEGEN_HOST_DEVICE uint64_t block_of(int64_t row, int64_t n, int64_t element) {
  const int64_t groups = (n + 4 * kGroup - 1) / (4 * kGroup);
  return static_cast<uint64_t>((row * groups + element / (4 * kGroup)) * kGroup + element % kGroup);
}
FUSEGEN_HOST_DEVICE int word_of(int64_t element) { return static_cast<int>(element / kGroup % 4); }

// The random word of one element of a mask of rows of n.
FUSEGEN_HOST_DEVICE uint32_t word(uint64_t key, Mask mask, uint32_t place, int64_t row, int64_t n,
                                  int64_t element) {
  return words(key, mask, place, block_of(row, n, element)).w[word_of(element)];
}

// An element is dropped (of zoneout: keeps its old state) where its word is below this.
FUSEGEN_HOST_DEVICE uint32_t threshold(double probability) {
  return static_cast<uint32_t>(probability * 4294967296.0);
}

}  // namespace fusegen::philox
