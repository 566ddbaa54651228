# Regular expressions. The checker has put a number into the place of each literal: its place among those compiled.
def re_test($re):    re_matches($re; true) | length > 0;
def re_match($re):   re_matches($re; false)[] | .[0] + { captures: .[1:] };
def re_names:        reduce (.[] | select(.name != null)) as $group ({}; . + { ($group.name): $group.string });
def re_capture($re): re_matches($re; false)[] | re_names;
def re_scan($re):    re_matches($re; false)[] | if length > 1 then [.[1:][].string] else .[0].string end;
def re_splits($re):  re_parts($re)[] | strings;
def re_split($re):   [re_splits($re)];
def re_sub($re; f):  reduce re_parts($re)[] as $part (""; . + ($part | if isarray then re_names | f end));

# Where jq and jaq differ, as jq.
def join($separator):
  if length == 0 then "" else
    [.[] | if . == null then "" else tostring end] | reduce .[1:][] as $next (.[0]; . + $separator + $next)
  end;
def from_entries:
  reduce (.[] | { (if has("key") then .key elif has("k") then .k elif has("name") then .name else .Name end
                   | if isstring then . else tojson end):
                  (if has("value") then .value elif has("v") then .v else .Value end) }) as $entry ({}; . + $entry);
def with_entries(f): to_entries | map(f) | from_entries;
def delpaths($paths): reduce ($paths | sort | reverse)[] as $path (.; getpath($path) |= empty);
def del(f): delpaths([path(f)]);
def trimstr($text): ltrimstr($text) | rtrimstr($text);
def toarray: if isarray then . else [.] end;

# Times: nothing beyond the calendar reaches the clockwork.
def todateiso8601:     in_calendar | jaq_todateiso8601;
def todate:            todateiso8601;
def strftime($format): in_calendar | jaq_strftime($format);
def gmtime:            in_calendar | jaq_gmtime;
def mktime:            in_calendar | jaq_mktime;
