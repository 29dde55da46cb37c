# Decides what to build for NVIDIA GPUs. In: FUSEGEN_CUDA (auto, on, off).
# Out: FUSEGEN_CUDA_ARCHS (empty: no CUDA), FUSEGEN_CUDA_CODE (nvcc's options for them) and FUSEGEN_CUDA_NOTE (the decision
# and its reason, for people); the sources
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

# Half of a kernel's compilation makes its PTX. Machine code is assembled from the newest PTX that is kept and that its
# generation can run, where there is any; no source asks for more than 9.0, and an architecture with an "a" has PTX of its
# own. python/fusegen/_info.py (code_for) tells what a driver then loads.
set(FUSEGEN_CUDA_CODE "")
set(cuda_ptx "")  # numbers, the oldest first
set(cuda_sources "")
foreach(arch IN LISTS FUSEGEN_CUDA_ARCHS)
  string(REGEX MATCH "^([0-9]+a?)(-real|-virtual)?$" arch "${arch}")
  set(number ${CMAKE_MATCH_1})
  set(kind "${CMAKE_MATCH_2}")
  if(NOT kind STREQUAL "-real")
    list(APPEND cuda_ptx ${number})
  endif()
  set(source ${number})
  if(kind STREQUAL "-real" AND NOT number MATCHES "a$")
    foreach(ptx IN LISTS cuda_ptx)
      if(ptx LESS_EQUAL number)
        set(source ${ptx})
      endif()
    endforeach()
  endif()
  if(NOT source IN_LIST cuda_sources)
    list(APPEND cuda_sources ${source})
    set(cuda_code_${source} "")
  endif()
  if(NOT kind STREQUAL "-real")
    list(APPEND cuda_code_${source} compute_${number})
  endif()
  if(NOT kind STREQUAL "-virtual")
    list(APPEND cuda_code_${source} sm_${number})
  endif()
endforeach()
foreach(source IN LISTS cuda_sources)
  list(JOIN cuda_code_${source} "," code)
  list(APPEND FUSEGEN_CUDA_CODE "--generate-code=arch=compute_${source},code=[${code}]")
endforeach()

if(FUSEGEN_CUDA_ARCHS)
  set(CMAKE_CUDA_COMPILER ${FUSEGEN_NVCC})
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # one wheel then serves every torch of the same CUDA major version
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
endif()
