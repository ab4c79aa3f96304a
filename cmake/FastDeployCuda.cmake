# The CUDA toolkit and how kernels are compiled; included only with FASTDEPLOY_CUDA.

set(FASTDEPLOY_CUDA_ARCHITECTURES "80-real;90a-real" CACHE STRING
    "What the portable kernels are compiled for; files ending in _sm90.cu are always for 90a")
set(CMAKE_CUDA_ARCHITECTURES ${FASTDEPLOY_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)
  message(FATAL_ERROR "FASTDEPLOY_CUDA needs nvcc 13.0 or newer, found ${CMAKE_CUDA_COMPILER_VERSION} (${CMAKE_CUDA_COMPILER}); "
                      "set CUDACXX to another one")
endif()
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # with some host compilers CMake 3.25 does not know that nvcc has C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
find_package(CUDAToolkit REQUIRED)
# -lineinfo: profilers and compute-sanitizer name source lines; it changes no code.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-lineinfo;--expt-relaxed-constexpr;-Xcompiler=-Wall,-Wno-unknown-pragmas>")

# fd_cuda_kernels(TARGET DIR): compiles every DIR/*.cu into TARGET, and DIR/*_select.cc, which choose between kernels.
function(fd_cuda_kernels target dir)
  file(GLOB portable CONFIGURE_DEPENDS ${dir}/*.cu)
  file(GLOB sm90 CONFIGURE_DEPENDS ${dir}/*_sm90.cu)
  file(GLOB select CONFIGURE_DEPENDS ${dir}/*_select.cc)
  if(sm90)
    list(REMOVE_ITEM portable ${sm90})
    add_library(${target}_sm90 OBJECT ${sm90})
    set_target_properties(${target}_sm90 PROPERTIES CUDA_ARCHITECTURES 90a-real)
    target_include_directories(${target}_sm90 PRIVATE ${CMAKE_SOURCE_DIR}/src)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_sm90>)
  endif()
  target_sources(${target} PRIVATE ${portable} ${select})
  target_link_libraries(${target} PUBLIC CUDA::cublasLt)
endfunction()

# fd_gpu_test_properties(test ...): for registered tests that need a device.
function(fd_gpu_test_properties)
  set_tests_properties(${ARGN} PROPERTIES SKIP_REGULAR_EXPRESSION "no CUDA device on this machine" RUN_SERIAL ON)
endfunction()
