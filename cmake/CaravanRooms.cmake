# A room is a folder below caravan/ and one static library.  Its links are private: a room sees another only through the
# headers that tests/house allows it to include.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(CARAVAN_CCACHE ccache)
  if(CARAVAN_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CARAVAN_CCACHE})
  endif()
endif()

find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)

# What everything in this tree is compiled with.  No flag here raises the instruction set: that is for ops/cpu alone.
add_library(caravan_options INTERFACE)
target_compile_options(caravan_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra>
                                                     $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${CARAVAN_WERROR}>>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 takes `"literal" + string` for an overlapping copy (GCC bug 105651, mended in 13).
  target_compile_options(caravan_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(CARAVAN_SANITIZE)
  target_compile_options(caravan_options INTERFACE -fsanitize=${CARAVAN_SANITIZE} -fno-sanitize-recover=undefined
                                                   -fno-omit-frame-pointer)
  target_link_options(caravan_options INTERFACE -fsanitize=${CARAVAN_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # The sanitizers' own code makes g++ see uninitialised values in the standard library's <regex>.
    target_compile_options(caravan_options INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()

# The table of arrows: CARAVAN_BELOW_<room> holds every room below, the indirect ones included.
set(CARAVAN_ARROWS ${PROJECT_SOURCE_DIR}/cmake/arrows.txt)
set_property(DIRECTORY ${PROJECT_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CARAVAN_ARROWS})
file(STRINGS ${CARAVAN_ARROWS} lines REGEX "^[a-z]")
foreach(line ${lines})
  string(REGEX MATCH "^([a-z_]+):(.*)$" matched "${line}")
  set(room ${CMAKE_MATCH_1})
  separate_arguments(direct UNIX_COMMAND "${CMAKE_MATCH_2}")
  set(CARAVAN_BELOW_${room})
  foreach(other ${direct})
    list(APPEND CARAVAN_BELOW_${room} ${other} ${CARAVAN_BELOW_${other}})
  endforeach()
  list(REMOVE_DUPLICATES CARAVAN_BELOW_${room})
endforeach()

# caravan_room(<name> SOURCES <file>... [ROOMS <room>...] [LIBRARIES <target>...])
#   <name>     a room of the table, or <room>_<part> for a folder inside one (ops_cpu is caravan/ops/cpu)
#   ROOMS      other rooms this one links, all below it in the table of arrows
#   LIBRARIES  libraries from outside, never visible to those who use the room
function(caravan_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ROOMS;LIBRARIES" ${ARGN})
  file(RELATIVE_PATH room ${PROJECT_SOURCE_DIR}/caravan ${CMAKE_CURRENT_SOURCE_DIR})
  string(REGEX REPLACE "/.*" "" room ${room})
  foreach(other ${ARG_ROOMS})
    if(NOT other IN_LIST CARAVAN_BELOW_${room} AND NOT other MATCHES "^${room}_")
      message(FATAL_ERROR "Room ${name} links ${other}, which cmake/arrows.txt does not put below ${room}.")
    endif()
  endforeach()

  add_library(caravan_${name} STATIC ${ARG_SOURCES})
  add_library(caravan::${name} ALIAS caravan_${name})
  set_target_properties(caravan_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(caravan_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                    $<INSTALL_INTERFACE:include>)
  target_compile_features(caravan_${name} PUBLIC cxx_std_20)
  target_link_libraries(caravan_${name} PRIVATE $<BUILD_INTERFACE:caravan_options> ${ARG_LIBRARIES})
  foreach(other ${ARG_ROOMS})
    target_link_libraries(caravan_${name} PRIVATE caravan_${other})
  endforeach()
  set_property(GLOBAL APPEND PROPERTY CARAVAN_ROOMS caravan_${name})
endfunction()
