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
fn what_may_not_be_called_is_refused_by_name_line_and_reason() {
    for (program, says) in [
        ("env", "`env` is not allowed: a program sees the event"),
        ("env.HOME", "`env` is not allowed"),
        ("$ENV.HOME", "`$ENV` is not allowed"),
        ("now", "`now` is not allowed: the answer must be the same"),
        ("localtime", "`localtime`"),
        (r#"strflocaltime("%H")"#, "`strflocaltime`"),
        ("halt", "`halt`"),
        ("halt_error", "`halt_error`"),
        ("input", "`input`"),
        ("[inputs]", "`inputs`"),
        ("debug", "`debug`"),
        ("debug(\"x\")", "`debug`"),
        ("stderr", "`stderr`"),
        ("import \"a\" as a; .", "`import`"),
        ("include \"a\"; .", "`include`"),
        ("[while(true; .)]", "`while` is not allowed: it may never end"),
        ("until(false; .)", "`until`"),
        ("[limit(1e9; repeat(1))]", "`repeat`"),
        ("recurse(.a)", "`recurse`"),
        ("recurse(.a; true)", "`recurse`"),
        ("[.[] | combinations(3)]", "`combinations`"),
        ("def f: f; f", "`f` calls itself"),
        ("def f(g): f(g | g); f(.)", "`f` calls itself"),
        ("def f: def g: f; g; f", "`f` calls itself"),
        ("input_line_number", "`input_line_number`"),
        ("tobytes", "there is no function `tobytes`"),
        ("matches(\"a\"; \"b\")", "there is no function `matches(…; …)`"),
        ("ascii_downcas", "did you mean `ascii_downcase`?"),
        ("select", "there is no function `select`; it is `select(…)`"),
        ("re_matches(0; true)", "there is no function"),
        ("hookbridge_tick", "there is no function"),
        ("hookbridge_main", "there is no function"),
        ("@csv", "there is no function `@csv`"),
        ("$x", "there is no variable `$x`"),
        ("$__loc__", "there is no variable"),
        ("{(", "expected"),
        ("", "term expected"),
        (". | }", "line 1, column 5"),
    ] {
        refused(program, says);
    }
    let problems = refused(".a |\n  env, now", "`env`");
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(2, 3), (2, 8)], "every problem, each at its place");
    check("def now: 1; def f(env): env; now, f(2)", "null", &["1", "2"]);
}

#[test]
fn a_program_and_a_sender_cannot_run_away_together() {
    let numbers = format!("[{}]", vec!["1"; 300].join(","));
    let body = format!(r#"{{"n":1000000000,"list":{numbers},"text":"{}"}}"#, "a b ".repeat(500));
    for program in [
        "[range(.n)]",
        "[range(0; 1; 1e-9)]",
        "reduce range(.n) as $i (0; . + 1)",
        "last(range(.n))",
        "[limit(.n; range(.n))]",
        r#""x" * .n"#,
        r#".n * "x""#,
        "reduce range(60) as $i (\"x\"; . + .)",
        "reduce range(60) as $i (\"x\"; . * 2)",
        "reduce range(60) as $i ([1]; . + .)",
        "reduce range(60) as $i (\"\\\"\"; tojson)",
        "reduce range(200) as $i (.text; @base64)",
        "reduce range(200) as $i (.text; @uri)",
        "reduce range(200) as $i (.text; @html \"\\(.)<\")",
        ".x[.n] = 1",
        ".list[.n] = 1",
        "setpath([\"x\", .n]; 1)",
        ".list[-.n] = 1",
        "setpath([range(9000) | \"a\"]; 1)",
        "getpath([range(9000) | \"a\"]) |= 1",
        "(reduce range(9000) as $i (.; .)) |= 1",
        "(reduce .list[] as $i (.; .)) |= 1",
        "[.list[] as $a | .list[] as $b | 1]",
        "[.list[] as $a | .list[] as $b | .list[] as $c | empty]",
        ".list as $l | [$l, $l, $l, $l] | [combinations]",
        "reduce range(9000) as $i (0; [.])",
        "reduce .list[] as $i ({}; {a: .})",
        "reduce range(40) as $i (1; [., .])",
        "reduce range(40) as $i (1; [., .]) | tojson",
        "reduce range(40) as $i (1; [., .]) | tostring",
        "reduce range(40) as $i (1; [., .]) | sort",
        "reduce range(40) as $i (1; [., .]) | [., .] | sort_by(.)",
        "reduce range(40) as $i (1; [., .]) | flatten",
        "reduce range(40) as $i (1; [., .]) | [..] | length",
        "def b: reduce range(40) as $i (1; [., .]); b == b",
        "def b: reduce range(40) as $i (1; [., .]); b < b",
        "def b: reduce range(40) as $i (1; [., .]); [b] - [b]",
        "def b: reduce range(40) as $i (1; [., .]); b | contains(b)",
        "def b: reduce range(40) as $i (1; [., .]); [b, b] | unique",
        "def b: reduce range(40) as $i (1; [., .]); [b, b] | index([b])",
        "def b: reduce range(40) as $i (1; [., .]); [b, b] | min",
        "def b: reduce range(40) as $i ({}; {a: ., b: .}); b * b",
        "def b: reduce range(40) as $i (1; [., .]); b | walk(.)",
        "def b: reduce range(40) as $i (1; [., .]); [b | paths]",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; reduce g as $x (0; .)",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; g",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; [g | empty]",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; try g catch 0",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; g |= .",
        "def d: ., .; def e: d | d | d | d; def f: e | e | e | e; def g: f | f | f; [path(g)]",
        "reduce range(9000) as $i (.n; . * .)",
        "reduce range(9000) as $i ([]; . + [.text])  | .[0] = (.text * .n)",
        "[.list[] | [range(9000)]]",
        "[range(9000) as $i | range(9000) | try error catch .]",
        "[range(9000) as $i | (.list[] | error)?]",
        ".text | [range(9000) as $i | gsub(\" \"; \"\")]",
        ".text | [range(9000) as $i | explode]",
        ".text | [range(9000) as $i | ascii_downcase]",
        ".text | [range(9000) as $i | startswith(\"a b\") | range(9000)]",
        "[range(9000) as $i | .text | split(\"\")]",
        "(.a, .b, (.list[] as $i | .list[] as $j | .c)) = 1",
        "[foreach range(9000) as $i (0; .; range(9000))]",
        "[.list[] as $i | .list | sort]",
        "[.list[] as $i | .list | group_by(.)]",
        "[.list[] as $i | .list | indices([1])]",
        ".list | map(tostring) | reduce range(9000) as $i (.; map(. + \"x\"))",
        "[range(5000)]|.[]",
    ] {
        let program = Program::compile(program).expect(program);
        let start = std::time::Instant::now();
        let result = program.eval(&Json::new(body.as_bytes()).unwrap());
        let took = start.elapsed();
        assert!(took.as_millis() < 5_000, "{} took {took:?}", program.text());
        let error = result.map(|results| results.len());
        assert!(error.is_err(), "{} gives {error:?}", program.text());
    }
}

#[test]
fn a_program_of_the_greatest_size_fits_a_threads_stack() {
    let object = |fields: usize| {
        let fields: Vec<_> = (0..fields).map(|at| format!("f{at}: (.x + {at})")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let chain = |functions: usize| {
        let later: Vec<_> = (1..functions).map(|at| format!("def f{at}: [f{}];", at - 1)).collect();
        format!("def f0: .x; {} f{}", later.concat(), functions - 1)
    };
    let deep = 230;
    for program in [
        object(deep),
        format!("{}.x{}", "[".repeat(deep), "]".repeat(deep)),
        format!("{}.x", "-".repeat(deep / 2 * 2).replace("--", "- -")),
        format!("{}.x + 1", "1 | ".repeat(deep - 2)),
        format!(".x{}", " + 1".repeat(deep - 2)),
        format!(".x{}", " , 1".repeat(deep / 2)),
        format!("{}.x{}", "if . then ".repeat(deep / 2), " else 1 end".repeat(deep / 2)),
        format!("{}.x", "try ".repeat(deep)),
        chain(deep / 2 - 5),
    ] {
        let program = match Program::compile(&program) {
            Ok(program) => program,
            Err(problems) => panic!("{program}: {problems:?}"),
        };
        match program.eval(&Json::new(br#"{"x":1}"#).unwrap()) {
            Ok(_) | Err(Error::Limit(Limit::Stack | Limit::Nesting) | Error::Failed { .. }) => {}
            Err(other) => panic!("{}: {other}", program.text()),
        }
    }
    refused(&object(300), "nested more than 250 deep");
    refused(&chain(200), "nested more than 250 deep");
    refused(&"[".repeat(16_000), "more than 250 brackets are open");
    refused(&format!("{}1", "-".repeat(16_000)), "nested more than 250 deep");
    refused(&format!("{}1", "try ".repeat(4_000)), "nested more than 250 deep");
    refused(&format!("{}1", "if 1 then ".repeat(1_600)), "expected");
    refused(&format!("{}1", "1 as $x|".repeat(2_000)), "nested more than 250 deep");
    refused(&format!("{}1", "1|".repeat(8_000)), "nested more than 250 deep");
    refused(&format!("{}1", "def f:".repeat(2_600)), "expected");
    refused(&".".repeat(20_000), "at most 16384 bytes");
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

mod properties {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\\\\\"é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec(("[ab]", inner), 0..3)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn path() -> impl Strategy<Value = String> {
        let step =
            prop_oneof![Just(".a".to_owned()), Just(".b".to_owned()), Just(".[0]".to_owned()), Just(".[1]".to_owned())];
        prop::collection::vec(step, 0..4).prop_map(|steps| if steps.is_empty() { ".".into() } else { steps.concat() })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The look-up and jaq say the same, whether it is a value, null or an error; alone and together with others.
        #[test]
        fn a_looked_up_path_is_jaqs_own_answer(document in json(), paths in prop::collection::vec(path(), 1..4)) {
            let text = document.to_string();
            let json = Json::new(text.as_bytes()).unwrap();
            let mut set = PathSet::default();
            for path in &paths {
                set.add(Program::compile(path).unwrap().path().unwrap());
            }
            let found = json.find(&set).unwrap();
            for (path, found) in paths.iter().zip(found) {
                let program = Program::compile(path).unwrap();
                prop_assert!(program.path().is_some());
                // Not a plain path any more, and the same question.
                let jaq = Program::compile(&format!("first({path})")).unwrap().eval(&json);
                match (found, jaq) {
                    (Found::Value(text), Ok(jaq)) => prop_assert_eq!(text, jaq[0].text()),
                    (Found::Nothing, Ok(jaq)) => prop_assert_eq!("null", jaq[0].text()),
                    (Found::Mismatch(_), Err(Error::Failed { .. })) => {}
                    (found, jaq) => prop_assert!(false, "{} on {}: {:?} and {:?}", path, text, found, jaq),
                }
            }
        }

        #[test]
        fn text_comes_back_as_it_was(document in json()) {
            let text = document.to_string();
            let results = eval("first(.)", text.as_bytes()).unwrap();
            prop_assert_eq!(&results[0], &text);
        }

        /// Whatever a person types: an answer or a problem, never a panic.
        #[test]
        fn no_text_breaks_the_compiler(text in "[a-z.\\[\\]{}()|,;:$@\"\\\\0-9 #?=-]{0,24}") {
            let _ = Program::compile(&text);
        }
    }
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
