# A program that needs glibc and cuBLASLt only, to be carried to a machine without packages; included with FASTDEPLOY_PORTABLE
# once the CUDA toolkit is found, because from here on only archives count as libraries.
set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
# The packaged libraries without an archive; tools/portable.sh brings their sources.
set(FASTDEPLOY_PROMETHEUS_DIR ${CMAKE_SOURCE_DIR}/build/sources/prometheus-cpp CACHE PATH "Sources of prometheus-cpp")
set(FASTDEPLOY_HARFBUZZ_DIR ${CMAKE_SOURCE_DIR}/build/sources/harfbuzz CACHE PATH "Sources of HarfBuzz")

# Kernels shrink to a tenth; the driver unpacks them when they are loaded.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-compress-mode=size>")
add_link_options(-static-libstdc++ -static-libgcc -Wl,--gc-sections -s)
# No toolkit has an archive of cuBLASLt that is small enough to carry. These are the toolkit's usual places; LD_LIBRARY_PATH goes first.
set(CMAKE_SKIP_BUILD_RPATH ON)
add_link_options("-Wl,--enable-new-dtags,-rpath,/usr/local/cuda/lib64:/usr/local/cuda-13/lib64:/usr/local/cuda/targets/x86_64-linux/lib")
