# Fails when OBJECT defines a symbol that the linker could merge with another object's or that others can see, but for
# ALLOWED.  A weak symbol compiled for a high instruction level may be the copy that the linker keeps for the whole
# program, which then dies on older processors.
#
#   cmake -DNM=<nm> -DOBJECT=<object> -DALLOWED=<demangled name> -P check_symbols.cmake
execute_process(COMMAND ${NM} --demangle --defined-only ${OBJECT} OUTPUT_VARIABLE listing RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${NM} could not read ${OBJECT}")
endif()
string(REPLACE ";" "," listing "${listing}")
string(REPLACE "\n" ";" lines "${listing}")
set(defined 0)
foreach(line ${lines})
  # "0000000000000000 T name": upper case letters are global, w, v and u are weak or unique.
  if(line MATCHES "^[0-9a-f]+ ([A-Zuvw]) (.*)$")
    if(CMAKE_MATCH_2 STREQUAL ALLOWED AND CMAKE_MATCH_1 STREQUAL "T")
      math(EXPR defined "${defined} + 1")
    else()
      list(APPEND wrong "${CMAKE_MATCH_1} ${CMAKE_MATCH_2}")
    endif()
  endif()
endforeach()
if(wrong)
  list(JOIN wrong "\n  " wrong)
  message(FATAL_ERROR "${OBJECT} shows the linker more than its table:\n  ${wrong}\n"
                      "give these internal linkage (see caravan/ops/cpu/kernels/kernels.h)")
endif()
if(NOT defined EQUAL 1)
  message(FATAL_ERROR "${OBJECT} does not define ${ALLOWED}")
endif()
