// How near is near enough. Each comparison returns "" or what is wrong.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "reference.h"

namespace fusegen::test {

// The tolerances of tests/tolerances.py and their reasons hold here.
inline double tolerance(Dtype dtype, bool gradient) {
  switch (dtype) {
    case Dtype::f64: return 1e-11;
    case Dtype::f32: return gradient ? 2e-5 : 5e-6;
    case Dtype::bf16: return gradient ? 4e-2 : 2e-2;
    case Dtype::f16: return gradient ? 6e-3 : 3e-3;
  }
  return 0;
}

inline const char* name(Dtype dtype) {
  constexpr const char* names[] = {"float32", "bfloat16", "float16", "float64"};
  return names[static_cast<int>(dtype)];
}

// Every element is within `limit` of the largest (at least `floor`); NaN, an unwritten element, never is.
inline std::string compare(const std::string& what, const Values& got, const Values& want, double limit,
                           double floor) {
  if (got.size() != want.size()) return what + ": " + std::to_string(got.size()) + " elements";
  double scale = floor;
  for (double v : want) scale = std::max(scale, std::fabs(v));
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::fabs(got[i] - want[i]) <= limit * scale) continue;
    char text[200];
    std::snprintf(text, sizeof text, "%s[%zu]: got %.9g, want %.9g, scale %.2g", what.c_str(), i, got[i],
                  want[i], scale);
    return text;
  }
  return "";
}

// The same, where what is not finite has its like on the other side.
inline std::string compare_not_finite(Values got, Values want, double limit) {
  for (size_t i = 0; i < want.size() && got.size() == want.size(); ++i) {
    if (std::isfinite(got[i]) && std::isfinite(want[i])) continue;
    if (got[i] != want[i] && !(std::isnan(got[i]) && std::isnan(want[i])))
      return "y[" + std::to_string(i) + "]: got " + std::to_string(got[i]) + ", want " +
             std::to_string(want[i]);
    got[i] = want[i] = 0;
  }
  return compare("y", got, want, limit, 1);
}

inline std::string compare(const Outputs& got, const Outputs& want, double limit) {
  std::string wrong = compare("y", got.y, want.y, limit, 1);
  if (wrong.empty()) wrong = compare("h_n", got.h_n, want.h_n, limit, 1);
  if (wrong.empty() && !got.c_n.empty()) wrong = compare("c_n", got.c_n, want.c_n, limit, 1);
  return wrong;
}

}  // namespace fusegen::test
