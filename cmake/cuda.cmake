# Decides what to build for NVIDIA GPUs. In: FUSEGEN_CUDA (auto, on, off).
# Out: FUSEGEN_CUDA_ARCHS (empty: no CUDA) and FUSEGEN_CUDA_NOTE (the decision and its reason, for people); the sources
# FUSEGEN_CUDA_KERNELS (of nvcc, and of the emulator of tests/simt), FUSEGEN_CUDA_PLANS (need no CUDA: in every build)
# and FUSEGEN_CUDA_DEVICE (need its headers).

# Machine code per generation, and portable code for whatever comes: of the oldest, and of the oldest that has clusters.
# A driver compiles the newest that its GPU can run.
set(FUSEGEN_CUDA_ALL_ARCHS 80 90-virtual 90a-real 100-real 120-real)

set(FUSEGEN_CUDA_ARCHS "")
string(TOLOWER "${FUSEGEN_CUDA}" cuda_mode)
if(NOT cuda_mode MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "FUSEGEN_CUDA must be auto, on or off, got '${FUSEGEN_CUDA}'")
endif()

set(cuda_folder ${PROJECT_SOURCE_DIR}/csrc/kernels/cuda)
file(GLOB_RECURSE FUSEGEN_CUDA_KERNELS CONFIGURE_DEPENDS ${cuda_folder}/*.cu)
file(GLOB_RECURSE FUSEGEN_CUDA_PLANS CONFIGURE_DEPENDS ${cuda_folder}/*.cpp)
file(GLOB FUSEGEN_CUDA_DEVICE CONFIGURE_DEPENDS ${cuda_folder}/device/*.cpp)
list(REMOVE_ITEM FUSEGEN_CUDA_PLANS ${FUSEGEN_CUDA_DEVICE})
find_program(FUSEGEN_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)

if(cuda_mode STREQUAL "off")
  set(FUSEGEN_CUDA_NOTE "off (FUSEGEN_CUDA=off)")
elseif(NOT FUSEGEN_CUDA_KERNELS)
  set(FUSEGEN_CUDA_NOTE "off (version ${PROJECT_VERSION} has no CUDA kernels)")
  if(cuda_mode STREQUAL "on")
    message(FATAL_ERROR "FUSEGEN_CUDA=on, but fusegen ${PROJECT_VERSION} has no CUDA kernels. Use auto or off.")
  endif()
elseif(NOT FUSEGEN_NVCC)
  set(FUSEGEN_CUDA_NOTE "off (no nvcc found)")
  if(cuda_mode STREQUAL "on")
    message(FATAL_ERROR "FUSEGEN_CUDA=on, but nvcc was not found. Put it on PATH or set CUDA_HOME.")
  endif()
elseif(cuda_mode STREQUAL "on")
  set(FUSEGEN_CUDA_ARCHS ${FUSEGEN_CUDA_ALL_ARCHS})
  set(FUSEGEN_CUDA_NOTE "on, every supported GPU")
else()
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE caps RESULT_VARIABLE failed ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(REGEX MATCHALL "[0-9]+\\.[0-9]" caps "${caps}")
  if(failed OR NOT caps)
    set(FUSEGEN_CUDA_NOTE "off (nvcc is here, but no GPU; FUSEGEN_CUDA=on builds for all)")
  else()
    list(REMOVE_DUPLICATES caps)
    string(REPLACE "." "" FUSEGEN_CUDA_ARCHS "${caps}")
    list(TRANSFORM FUSEGEN_CUDA_ARCHS REPLACE "^90$" "90a")  # Hopper's own instructions need the a
    list(TRANSFORM FUSEGEN_CUDA_ARCHS APPEND "-real")
    set(FUSEGEN_CUDA_NOTE "on, for the GPU of this machine")
  endif()
endif()

if(FUSEGEN_CUDA_ARCHS)
  set(CMAKE_CUDA_COMPILER ${FUSEGEN_NVCC})
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # one wheel then serves every torch of the same CUDA major version
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
endif()
