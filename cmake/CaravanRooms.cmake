# A room is a folder below caravan/ and one static library.  Its links are private: a room sees another only through the headers
# that tests/house allows it to include.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)

add_library(caravan_options INTERFACE)
target_compile_options(caravan_options INTERFACE -Wall -Wextra)
if(CARAVAN_SANITIZE)
  target_compile_options(caravan_options INTERFACE -fsanitize=${CARAVAN_SANITIZE} -fno-sanitize-recover=undefined
                                                   -fno-omit-frame-pointer)
  target_link_options(caravan_options INTERFACE -fsanitize=${CARAVAN_SANITIZE})
endif()

# caravan_room(<name> SOURCES <file>... [ROOMS <room>...] [LIBRARIES <target>...])
#   ROOMS      other rooms this one links, all below it in the table of arrows
#   LIBRARIES  libraries from outside, never visible to those who use the room
function(caravan_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ROOMS;LIBRARIES" ${ARGN})
  add_library(caravan_${name} STATIC ${ARG_SOURCES})
  add_library(caravan::${name} ALIAS caravan_${name})
  set_target_properties(caravan_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(caravan_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                    $<INSTALL_INTERFACE:include>)
  target_compile_features(caravan_${name} PUBLIC cxx_std_20)
  target_link_libraries(caravan_${name} PRIVATE $<BUILD_INTERFACE:caravan_options> ${ARG_LIBRARIES})
  foreach(room ${ARG_ROOMS})
    target_link_libraries(caravan_${name} PRIVATE caravan_${room})
  endforeach()
  set_property(GLOBAL APPEND PROPERTY CARAVAN_ROOMS caravan_${name})
endfunction()
