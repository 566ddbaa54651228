//! What programs answer.

mod bounds;
mod properties;

use super::*;

/// Runs a program on a JSON text and compares the results, each as compact JSON.
#[track_caller]
fn check(program: &str, input: &str, expected: &[&str]) {
    match eval(program, input.as_bytes()) {
        Ok(results) => assert_eq!(results, expected, "{program} on {input}"),
        Err(Tried::Broken(problems)) => panic!("{program} is broken: {problems:?}"),
        Err(Tried::Failed(error)) => panic!("{program} on {input}: {error}"),
    }
}

/// A program that must not compile, and what its refusal says.
#[track_caller]
fn refused(program: &str, says: &str) -> Vec<Problem> {
    let problems = Program::compile(program).expect_err(program);
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|text| text.contains(says)), "{program}: {said:?}");
    problems
}

/// A program that must fail on this input, and what the failure says.
#[track_caller]
fn fails(program: &str, input: &str, says: &str) {
    let program = Program::compile(program).expect(program);
    let error = program.eval(&Json::new(input.as_bytes()).unwrap()).expect_err("a failure").to_string();
    assert!(error.contains(says), "{}: {error}", program.text());
}

#[test]
fn plain_paths_are_looked_up_directly() {
    for (program, input, expected) in [
        (".", r#" {"a" : 1} "#, r#"{"a" : 1}"#),
        (".a", r#"{"a":{"b":[1, 2]}}"#, r#"{"b":[1, 2]}"#),
        (".a.b[1]", r#"{"a":{"b":[1, 2]}}"#, "2"),
        (r#"."a-b"[0].c"#, r#"{"a-b":[{"c":"x"}]}"#, r#""x""#),
        (r#".["a"]"#, r#"{"a":12.10}"#, "12.10"),
        (".a | .b", r#"{"a":{"b":true}}"#, "true"),
        (".a.b", r#"{"a":null}"#, "null"),
        (".a.b", "{}", "null"),
        (".a[5]", r#"{"a":[1]}"#, "null"),
        (".a", r#"{"a":1,"a":2}"#, "2"),
        (".a.b", r#"{"a":{"b":1},"a":{"c":2}}"#, "null"),
        (".a.b", r#"{"a":"text","a":{"b":2}}"#, "2"),
        (r#"."\u00e9""#, r#"{"\u00e9":9007199254740993}"#, "9007199254740993"),
    ] {
        assert!(Program::compile(program).unwrap().path().is_some(), "{program}");
        check(program, input, &[expected]);
    }
    for program in [".a?", ".[]", ".a[-1]", ".a[1:]", ".[.a]", "..", "1"] {
        assert!(Program::compile(program).unwrap().path().is_none(), "{program}");
    }
    fails(".a.b", r#"{"a":"text"}"#, "a string has no such part");
    fails(".a[0]", r#"{"a":{}}"#, "an object has no such part");
}

#[test]
fn several_paths_take_one_pass() {
    let mut paths = PathSet::default();
    for path in [".type", ".data", ".data.id", ".list[1]", ".none"] {
        paths.add(Program::compile(path).unwrap().path().unwrap());
    }
    let found = paths.find(r#"{"list":[1,2],"type":"paid","data":{"id":7,"x":[]}}"#).unwrap();
    let expected = [r#""paid""#, r#"{"id":7,"x":[]}"#, "7", "2"];
    assert_eq!(&found[..4], expected.map(Found::Value));
    assert_eq!(found[4], Found::Nothing);
    for broken in ["{\"type\":1", "{} x", "{\"type\":01}", "", "{\"other\":nul}", "{\"a\":\"\u{1}\"}"] {
        assert!(paths.find(broken).is_err(), "{broken}");
    }
}

#[test]
fn no_digit_is_lost() {
    let numbers = r"[9007199254740993,12.10,-0.1e-7,1e400,123456789012345678901234567890,0.30000000000000004]";
    check(".[1:] + [.[0]] | .[-1:] + .[:-1]", numbers, &[numbers]);
    check("map(.)", numbers, &[numbers]);
    check("map({a: .}) | tojson | fromjson | map(.a)", numbers, &[numbers]);
    check(r#""12.10" | tonumber"#, "null", &["12.10"]);
    check(". + 1", "9007199254740993", &["9007199254740994"]);
    check("1.5 * 2, 10 / 4, 1e3", "null", &["3", "2.5", "1e3"]);
    check("nan", "null", &["null"]);
    let long = "9".repeat(50_000);
    check("[.]", &long, &[&format!("[{long}]")]);
}

#[test]
fn jq_works_as_users_know_it() {
    check(".items | map(.qty * .price) | add", r#"{"items":[{"qty":2,"price":3},{"qty":1,"price":4}]}"#, &["10"]);
    check(".created | todate", r#"{"created":1767225590}"#, &[r#""2025-12-31T23:59:50Z""#]);
    check(". | fromdate", r#""2025-12-31T23:59:50Z""#, &["1767225590"]);
    check(r#"strptime("%d.%m.%Y") | mktime | todate"#, r#""31.12.2025""#, &[r#""2025-12-31T00:00:00Z""#]);
    check(r#"strftime("%Y-%m")"#, "1767225590", &[r#""2025-12""#]);
    check(".a.b.c = 1", "{}", &[r#"{"a":{"b":{"c":1}}}"#]);
    check(".a[2] = 1", "{}", &[r#"{"a":[null,null,1]}"#]);
    check("del(.a)", r#"{"x":1,"a":2,"y":3,"z":4}"#, &[r#"{"x":1,"y":3,"z":4}"#]);
    check(".[1:3] |= map(. * 10)", "[1,2,3,4]", &["[1,20,30,4]"]);
    check("del(.[0,2])", "[1,2,3]", &["[2]"]);
    check("[.[] | select(. > 1)]", "[1,2,3]", &["[2,3]"]);
    check("to_entries, (with_entries(.value += 1))", r#"{"a":1}"#, &[r#"[{"key":"a","value":1}]"#, r#"{"a":2}"#]);
    check("from_entries", r#"[{"name":"a","value":false},{"k":1,"v":2}]"#, &[r#"{"a":false,"1":2}"#]);
    check("join(\"-\")", r#"["a",1,null,true]"#, &[r#""a-1--true""#]);
    check("[limit(3; .[])], first(.[]), isempty(.[])", "[1,2,3,4]", &["[1,2,3]", "1", "false"]);
    check("group_by(.k) | map(length)", r#"[{"k":2},{"k":1},{"k":2}]"#, &["[1,2]"]);
    check("sort_by(.k) | map(.v)", r#"[{"k":2,"v":"b"},{"k":1,"v":"a"}]"#, &[r#"["a","b"]"#]);
    check("unique, min, max, sort, reverse", "[3,1,3]", &["[1,3]", "1", "3", "[1,3,3]", "[3,1,3]"]);
    check("[paths], [..] | length", r#"{"a":[1]}"#, &["2", "3"]);
    check("flatten, flatten(1), transpose?", "[[1,[2]],[3]]", &["[1,2,3]", "[1,[2],3]", "[[1,3],[[2],null]]"]);
    check("walk(if isnumber then . + 1 else . end)", r#"{"a":[1,{"b":2}]}"#, &[r#"{"a":[2,{"b":3}]}"#]);
    check(
        "getpath([\"a\",\"b\"]), setpath([\"a\",\"b\"]; 1), delpaths([[\"a\"]])",
        "{}",
        &["null", r#"{"a":{"b":1}}"#, "{}"],
    );
    check("indices(1), index(2), rindex(1)", "[1,2,1]", &["[0,2]", "1", "2"]);
    check("contains({a:[\"x\"]}), inside({})", r#"{"a":["xyz"]}"#, &["true", "false"]);
    check("has(\"a\"), (.l | has(1)), (\"a\" | in({a:1}))", r#"{"a":1,"l":[0]}"#, &["true", "false", "true"]);
    check(
        r#""\(.a) and \(.b)", @json "x\(.b)", @uri "q=\(.a)""#,
        r#"{"a":"ü","b":[1]}"#,
        &[r#""ü and [1]""#, r#""x[1]""#, r#""q=%C3%BC""#],
    );
    check("@base64, (@base64 | @base64d)", r#""hi""#, &[r#""aGk=""#, r#""hi""#]);
    check("reduce .[] as $x (0; . + $x), [foreach .[] as $x (0; . + $x)]", "[1,2,3]", &["6", "[1,3,6]"]);
    check("def double(f): f * 2; double(.a)", r#"{"a":4}"#, &["8"]);
    check(". as {a: $x, b: [$y]} | $x + $y", r#"{"a":1,"b":[2]}"#, &["3"]);
    check("label $out | .[] | if . > 1 then ., break $out else empty end", "[1,2,3]", &["2"]);
    check("try error(\"no\") catch ., (.a? // \"none\")", "1", &[r#""no""#, r#""none""#]);
    check("[range(3)], [range(1;10;4)], [range(3;0;-1)]", "null", &["[0,1,2]", "[1,5,9]", "[3,2,1]"]);
    check(
        "ascii_downcase, ascii_upcase, length, utf8bytelength, explode[0]",
        r#""Ü1""#,
        &[r#""Ü1""#, r#""Ü1""#, "2", "3", "220"],
    );
    check(
        r#"ltrimstr("a"), rtrimstr("c"), startswith("ab"), endswith("x"), split("b")"#,
        r#""abc""#,
        &[r#""bc""#, r#""ab""#, "true", "false", r#"["a","c"]"#],
    );
    check(
        "pick(.a), keys, add, (.a |= . + 1)",
        r#"{"b":1,"a":2}"#,
        &[r#"{"a":2}"#, r#"["a","b"]"#, "3", r#"{"b":1,"a":3}"#],
    );
    check("combinations", "[[1,2],[3]]", &["[1,3]", "[2,3]"]);
    check("\"ab\" * 3, (\"ab\" * 0)", "null", &[r#""ababab""#, "null"]);
    check("empty", "1", &[]);
}

#[test]
fn regular_expressions_are_literals_and_work_as_jq_says() {
    check(r#"test("B"), test("B"; "i"), test("^c")"#, r#""abc""#, &["false", "true", "false"]);
    check(
        r#"match("(?<y>\\d+)-(x)?"; "g")"#,
        r#""é12-""#,
        &[concat!(
            r#"{"offset":1,"length":3,"string":"12-","name":null,"captures":[{"offset":1,"length":2,"string":"12","#,
            r#""name":"y"},{"offset":-1,"length":0,"string":null,"name":null}]}"#
        )],
    );
    check(r#"capture("(?<a>\\w)(?<n>\\d)")"#, r#""x b2""#, &[r#"{"a":"b","n":"2"}"#]);
    check(r#"[scan("\\d")], [scan("(\\w)(\\d)")]"#, r#""a1b2""#, &[r#"["1","2"]"#, r#"[["a","1"],["b","2"]]"#]);
    check(r#"gsub("\\s+"; " "), sub("a"; "z")"#, r#""a  b   a""#, &[r#""a b a""#, r#""z  b   a""#]);
    check(r#"gsub("(?<d>\\d)"; "<\(.d)>")"#, r#""1a2""#, &[r#""<1>a<2>""#]);
    check(r#"split(", *"; null), [splits(",")]"#, r#""a,  b""#, &[r#"["a","b"]"#, r#"["a","  b"]"#]);
    refused("test(.pattern)", "`test` takes a regular expression and flags as plain text");
    refused(r#"gsub("a\(.x)"; "b")"#, "plain text");
    refused(r#"test("a"; .flags)"#, "plain text");
    refused(r#"test("(")"#, "the regular expression is broken");
    refused(r#"test("a"; "q")"#, "no flag `q`");
    refused(r#"test("(a{1000}){1000}")"#, "the regular expression is broken");
}

#[test]
fn identifiers_are_hashed_as_vendors_do() {
    // Meta's parameter page, Segment's and Mailchimp's documentation.
    for (program, input, expected) in [
        (
            "normalize_email | sha256",
            "  John_Smith@gmail.com ",
            "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f",
        ),
        (
            "e164 | ltrimstr(\"+\") | sha256",
            "+1 (650) 555-1212",
            "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176",
        ),
        ("trim | ascii_downcase | sha256", " Zoë ", "2752b88686847fa5c86f47b94ce652b7b3f22a91c37617d451a4db9afa431450"),
        (
            "{Germany: \"de\"}[.] | sha256",
            "Germany",
            "959a45d44e6fcf58361ed004681556fe50129f2109e817dec098c00c9e5d2578",
        ),
        (
            "normalize_email | sha256",
            "62A14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f",
            "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f",
        ),
        ("normalize_email | md5", "Ana@Example.com", "cdb9d6a1dddc375a09cc83e3001598dc"),
        ("normalize_email", " ÄNNE@Example.COM\n", "änne@example.com"),
        ("e164", "+49 151 123-456", "+49151123456"),
        ("e164", "0049 (0)151/123456", "+49151123456"),
        // RFC 4231, test case 2.
        (
            "hmac_sha256(\"Jefe\")",
            "what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        // RFC 9562, appendix A.4.
        ("uuid5(\"dns\")", "www.example.com", "2ed6657d-e927-568b-95e1-2665a8aea6a2"),
        ("uuid5(\"6ba7b810-9dad-11d1-80b4-00c04fd430c8\")", "www.example.com", "2ed6657d-e927-568b-95e1-2665a8aea6a2"),
    ] {
        check(program, &serde_json::to_string(input).unwrap(), &[&format!("\"{expected}\"")]);
    }
}

#[test]
fn nothing_in_gives_nothing_out() {
    let functions = ["sha256", "md5", "hmac_sha256(\"k\")", "e164", "normalize_email", "uuid5(\"dns\")"];
    for function in functions {
        for nothing in ["null", "\"\"", "\" \""] {
            check(function, nothing, &["null"]);
        }
        fails(function, "12", "a number where a string is wanted");
    }
    check(".email | normalize_email | sha256", "{}", &["null"]);
    check("minor_units(\"EUR\")", "null", &["null"]);
    for national in ["0151 123456", "151123456", "+49 151 CALL-ME", "+", "+0151123456", "+123456789012345678"] {
        check("e164", &format!("{national:?}"), &["null"]);
    }
    fails("uuid5(\"nowhere\")", "\"x\"", "uuid5's namespace");
}

#[test]
fn money_is_exact() {
    for (amount, currency, expected) in [
        ("1999", "USD", "19.99"),
        ("17493", "eur", "174.93"),
        ("5", "EUR", "0.05"),
        ("-5", "EUR", "-0.05"),
        ("-1999", "EUR", "-19.99"),
        ("0", "EUR", "0.00"),
        ("1999", "JPY", "1999"),
        ("1999", "KWD", "1.999"),
        ("1", "CLF", "0.0001"),
        ("9007199254740993", "USD", "90071992547409.93"),
        ("123456789012345678901", "USD", "1234567890123456789.01"),
        ("\"1999\"", "USD", "19.99"),
    ] {
        check(&format!("minor_units({currency:?})"), amount, &[&format!("\"{expected}\"")]);
    }
    fails("minor_units(\"XYZ\")", "1", "does not know this currency");
    fails("minor_units(null)", "1", "takes a currency's code, and got null");
    fails("minor_units(\"USD\")", "19.99", "a whole number");
    fails("minor_units(\"USD\")", "\"19.99\"", "a whole number");
    fails("minor_units(\"USD\")", "true", "a whole number");
}

#[test]
fn times_outside_the_calendar_are_errors_and_not_other_times() {
    // Milliseconds for seconds.
    for program in ["todate", "gmtime", "strftime(\"%Y\")"] {
        fails(program, "1767225590000", "outside the years 0 to 9999");
        fails(program, "9223372036854775807", "outside the years 0 to 9999");
    }
    fails("mktime", "[2025,127,1,0,0,0]", "outside the years");
    fails("todate", "\"x\"", "a string is not a time");
    check("gmtime | mktime", "1767225590", &["1767225590"]);
}

#[test]
fn errors_do_not_tell_what_the_event_holds() {
    fails(".email.domain + 1", r#"{"email":"ana@example.com"}"#, "a string has no \"domain\"");
    fails(".email - 1", r#"{"email":"ana@example.com"}"#, "string - number cannot be calculated");
    fails(".x[.email] = 1", r#"{"email":"ana@example.com","x":[]}"#, "an array has no such part");
    fails("error(\"no country\")", "{}", "no country");
    fails("error({a: 1})", "{}", "error with an object");
}

#[test]
fn documents_are_strict_json() {
    for broken in [
        "",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "[1 2]",
        "NaN",
        "[Infinity]",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "'a'",
        "nul",
        "# note\n1",
        "b\"x\"",
        "\"\u{1}\"",
        r#""\x""#,
        r#""\ud800""#,
        "\"a",
        "{1:2}",
        "1 2",
        "[",
        "\u{feff}1",
        "\"\\",
    ] {
        let json = Json::new(broken.as_bytes()).unwrap();
        assert!(matches!(Program::compile("[.]").unwrap().eval(&json), Err(Error::NotJson(_))), "{broken}");
    }
    assert!(Json::new(b"\"\xff\"").is_err());
    assert!(matches!(
        eval("[.]", format!("{}{}", "[".repeat(500_000), "]".repeat(500_000)).as_bytes()),
        Err(Tried::Failed(_))
    ));
    check("[.]", r#""\u00e9\ud83d\ude00\n\"""#, &[r#"["é😀\n\""]"#]);
    check("[.]", " {\"a\" : [ ] } ", &[r#"[{"a":[]}]"#]);
}

#[test]
fn yes_no_and_words() {
    let json = Json::new(br#"{"a":"x\ty","n":12.10,"t":true,"f":false,"z":null,"o":{}}"#).unwrap();
    let program = |text| Program::compile(text).unwrap();
    for (text, yes) in
        [(".a", true), (".f", false), (".z", false), (".none", false), (".n == 12.1", true), ("empty", false)]
    {
        assert_eq!(program(text).is_true(&json), Ok(yes), "{text}");
    }
    for (text, word) in [
        (".a", Some("x\ty")),
        (".n", Some("12.10")),
        (".t", Some("true")),
        (".z", None),
        ("empty", None),
        (".a + \"!\"", Some("x\ty!")),
        (".n, .a", Some("12.10")),
    ] {
        assert_eq!(program(text).scalar(&json).unwrap().as_deref(), word, "{text}");
    }
    assert_eq!(program(".o").scalar(&json), Err(Error::NotScalar("an object")));
}

#[test]
fn the_examples_of_the_guide_are_true() {
    let guide = include_str!("../../docs/mapping.md");
    let blocks: Vec<(&str, &str)> = guide
        .split("```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.split_once('\n'))
        .filter(|(language, _)| ["jq", "json", "result"].contains(language))
        .collect();
    assert!(blocks.len() >= 30, "{} blocks", blocks.len());
    for example in blocks.chunks(3) {
        let [("jq", program), ("json", input), ("result", expected)] = example else { panic!("{example:?}") };
        let expected: Vec<_> = expected.lines().collect();
        check(program, input, &expected);
    }
}
