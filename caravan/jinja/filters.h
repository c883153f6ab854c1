// Filters, by subject; filters.cc has their table.
#pragma once

#include "caravan/jinja/call.h"

namespace caravan::jinja {

// The value itself when it is a string, else its str().
Value as_text(Engine& engine, const Value& value);
// str.replace; `limit` below 0: all.
Value replace_text(Engine& engine, std::string_view text, std::string_view old, std::string_view by,
                   std::int64_t limit);
// The value of a dotted path below `value`, as jinja2's make_attrgetter looks it up; `otherwise`, unless null, stands for
// what is undefined on the way.
Value path_of(Engine& engine, const Value& value, const Value& path, const Value* otherwise = nullptr);

namespace filters {

// Text.
Value capitalize(Engine& engine, const Value& value, const Arguments& arguments);
Value center(Engine& engine, const Value& value, const Arguments& arguments);
Value escape(Engine& engine, const Value& value, const Arguments& arguments);
Value format(Engine& engine, const Value& value, const Arguments& arguments);
Value indent(Engine& engine, const Value& value, const Arguments& arguments);
Value lower(Engine& engine, const Value& value, const Arguments& arguments);
Value replace(Engine& engine, const Value& value, const Arguments& arguments);
Value safe(Engine& engine, const Value& value, const Arguments& arguments);
Value string(Engine& engine, const Value& value, const Arguments& arguments);
Value title(Engine& engine, const Value& value, const Arguments& arguments);
Value tojson(Engine& engine, const Value& value, const Arguments& arguments);
Value trim(Engine& engine, const Value& value, const Arguments& arguments);
Value truncate(Engine& engine, const Value& value, const Arguments& arguments);
Value upper(Engine& engine, const Value& value, const Arguments& arguments);

// Numbers, and whatever there is.
Value absolute(Engine& engine, const Value& value, const Arguments& arguments);
Value otherwise(Engine& engine, const Value& value, const Arguments& arguments);  // default
Value to_float(Engine& engine, const Value& value, const Arguments& arguments);
Value to_int(Engine& engine, const Value& value, const Arguments& arguments);
Value round(Engine& engine, const Value& value, const Arguments& arguments);

// Items.
Value dictsort(Engine& engine, const Value& value, const Arguments& arguments);
Value first(Engine& engine, const Value& value, const Arguments& arguments);
Value items(Engine& engine, const Value& value, const Arguments& arguments);
Value join(Engine& engine, const Value& value, const Arguments& arguments);
Value last(Engine& engine, const Value& value, const Arguments& arguments);
Value length(Engine& engine, const Value& value, const Arguments& arguments);
Value list(Engine& engine, const Value& value, const Arguments& arguments);
Value map(Engine& engine, const Value& value, const Arguments& arguments);
Value max(Engine& engine, const Value& value, const Arguments& arguments);
Value min(Engine& engine, const Value& value, const Arguments& arguments);
Value reject(Engine& engine, const Value& value, const Arguments& arguments);
Value rejectattr(Engine& engine, const Value& value, const Arguments& arguments);
Value reverse(Engine& engine, const Value& value, const Arguments& arguments);
Value select(Engine& engine, const Value& value, const Arguments& arguments);
Value selectattr(Engine& engine, const Value& value, const Arguments& arguments);
Value sort(Engine& engine, const Value& value, const Arguments& arguments);
Value sum(Engine& engine, const Value& value, const Arguments& arguments);
Value unique(Engine& engine, const Value& value, const Arguments& arguments);

}  // namespace filters

}  // namespace caravan::jinja
