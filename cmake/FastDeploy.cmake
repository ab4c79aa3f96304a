# Compiler settings and the two functions every folder uses: fd_library and fd_test.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g1")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
find_package(Threads REQUIRED)

add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror=return-type;-Wno-unused-parameter;-Wno-missing-field-initializers>"
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)  # GCC 12 reports a false -Wrestrict for std::string assignment
# Results are compared bit by bit between builds and batch shapes: no contraction or reassociation behind our back.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(FASTDEPLOY_SANITIZE)
  add_compile_options(-fsanitize=${FASTDEPLOY_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${FASTDEPLOY_SANITIZE})
  if(FASTDEPLOY_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
  if(FASTDEPLOY_SANITIZE MATCHES "thread")
    add_compile_options(-Wno-tsan)  # GCC warns about Asio's fences, which ThreadSanitizer models well enough
  endif()
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()

if(FASTDEPLOY_TESTS)
  enable_testing()
  # A machine without a package source builds GoogleTest from a folder of sources.
  set(FASTDEPLOY_GTEST_DIR "" CACHE PATH "Sources of GoogleTest, where no package of it is installed")
  if(FASTDEPLOY_GTEST_DIR)
    set(INSTALL_GTEST OFF)
    add_subdirectory(${FASTDEPLOY_GTEST_DIR} ${CMAKE_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
    foreach(target gtest gtest_main)  # newer releases have these names already
      if(NOT TARGET GTest::${target})
        add_library(GTest::${target} ALIAS ${target})
      endif()
    endforeach()
  else()
    find_package(GTest REQUIRED)
  endif()
endif()

# fd_library(NAME SRCS a.cc ... DEPS lib ...): a static library of one folder; includes are relative to src/.
function(fd_library name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${A_SRCS})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(${name} PUBLIC ${A_DEPS} Threads::Threads)
endfunction()

# fd_test(NAME SRCS a_test.cc ... DEPS lib ... [LABELS unit|parity|golden]): a GoogleTest program run by ctest from the source root.
function(fd_test name)
  if(NOT FASTDEPLOY_TESTS)
    return()
  endif()
  cmake_parse_arguments(A "" "" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${A_DEPS} GTest::gtest GTest::gtest_main Threads::Threads)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT 900)
endfunction()
