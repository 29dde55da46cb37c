// Checks of what came in, each naming the argument, what was expected and what came. The Python layers check
// for users; these keep a wrong direct call from reading foreign memory.
#pragma once
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "view.h"

namespace fusegen {

std::string shape_text(const View& v);
std::string shape_text(std::initializer_list<int64_t> shape);

// The dtype of a call, from its first tensor. Throws std::invalid_argument.
Dtype float_dtype(const View& v, const char* name);

// Where the tensors of a call lie, in DLPack's numbers.
struct Site {
  int device_type = 1, device_id = 0;
};

// v has this shape, the call's dtype, lies at `site` and has a contiguous last dimension.
void check(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
           Site site = {});
ElementType element_type(Dtype d);

// [T,B,n] or [B,n] -> Rows; absent stays absent.
Rows rows(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
          Site site = {});
Matrix matrix(const View& v, const char* name, std::initializer_list<int64_t> shape, ElementType dtype,
              Site site = {});
void* vector(const View& v, const char* name, int64_t n, ElementType dtype, Site site = {});

// The same with a missing tensor refused.
const View& required(const View& v, const char* name);

}  // namespace fusegen
