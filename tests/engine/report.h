// Counts checks and prints what fails.
#pragma once
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>

namespace fusegen::test {

class Report {
public:
  // Runs one check of a case; `check` returns "" or what is wrong.
  void run(const std::string& what, const std::function<std::string()>& check) {
    std::string wrong;
    try {
      wrong = check();
    } catch (const std::exception& e) { wrong = e.what(); }
    ++(wrong.empty() ? passed_ : failed_);
    if (!wrong.empty()) std::printf("FAILED %s: %s\n", what.c_str(), wrong.c_str());
  }

  void add(const Report& other) {
    passed_ += other.passed_;
    failed_ += other.failed_;
  }

  int close() const {
    std::printf("%d passed, %d failed\n", passed_, failed_);
    return failed_ || !passed_ ? 1 : 0;
  }

private:
  int passed_ = 0, failed_ = 0;
};

struct Sizes {
  int64_t T, B, I, H;
};
// Layers and Linear layers with weights of 8 bits; streams of layers.
void check_int8(Report& report, const Sizes& sizes);
void check_streams(Report& report, const Sizes& sizes);
// The discriminator step: every loss, penalty and dtype over a few odd shapes.
void check_mlp(Report& report);
// Its convolutions and batch norms, in every width of a block.
void check_convolutions(Report& report);
// Weights of 8 bits on every instruction set that was built, whichever is in use.
void check_int8_sets(Report& report);

}  // namespace fusegen::test
