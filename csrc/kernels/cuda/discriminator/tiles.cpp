#include "tiles.h"

#include <algorithm>

#include "../layout.h"

namespace fusegen::cuda {
namespace {

struct Candidate {
  MlpTile tile;
  int m, n;
};
constexpr Candidate kCandidates[] = {{MlpTile::small, 32, 32},
                                     {MlpTile::medium, 64, 64},
                                     {MlpTile::large, 128, 128},
                                     {MlpTile::warpgroups, 128, 128}};

bool runs(const Candidate& c, const Device& device, Format format) {
  if (c.tile == MlpTile::large) return format != Format::f32;
  if (c.tile == MlpTile::warpgroups)
    return device.major == 9 && device.code >= 90 && number_bytes(format) == 2 &&
           device.shared_bytes >= ring_bytes(true) + barrier_bytes(true);
  return true;
}

// Clocks, derived from an H100's figures; only their proportions matter. Of L2 an SM gets 64 bytes a clock,
// and a chunk of a tile is 64 (m + n). mma.sync multiplies about 1300 16-bit pairs a clock (a warpgroup
// 2048), half as many TF32 ones in twice the chunks, and true float32 takes three times as long. Before a
// tile's first stage has come and after its last, latencies add up to some 1500.
constexpr int64_t kLatency = 1500;
int64_t clocks_of_tile(const Candidate& c, const ProductSize& p, Format format) {
  const int64_t chunks = (static_cast<int64_t>(p.k) * number_bytes(format) + kChunk - 1) / kChunk;
  const int64_t multiply =
      c.m * c.n * 32 / (c.tile == MlpTile::warpgroups ? 2048 : 1300) * (format == Format::f32 ? 3 : 1);
  return chunks * std::max<int64_t>(c.m + c.n, multiply) + kLatency;
}

// All phases, each in as many turns as its tiles take; the longest tile counts.
int64_t clocks_of_pass(const Candidate& c, int sms, Format format, const std::vector<ProductSize>& products) {
  int64_t total = 0;
  for (size_t i = 0; i < products.size();) {
    const int phase = products[i].phase;
    int64_t tiles = 0, longest = 0;
    for (; i < products.size() && products[i].phase == phase; ++i) {
      const ProductSize& p = products[i];
      tiles += static_cast<int64_t>(ceil_div(p.m, c.m)) * ceil_div(p.n, c.n);
      longest = std::max(longest, clocks_of_tile(c, p, format));
    }
    total += (tiles + sms - 1) / sms * longest;
  }
  return total;
}

}  // namespace

MlpTile choose_tile(const Device& device, Format format, const std::vector<ProductSize>& products) {
  const auto clocks = [&](const Candidate& c) { return clocks_of_pass(c, device.sms, format, products); };
  const Candidate* best = kCandidates;
  for (const Candidate& c : kCandidates)
    if (runs(c, device, format) && clocks(c) < clocks(*best)) best = &c;
  return best->tile;
}

}  // namespace fusegen::cuda
