//! The look-up, the reader and the compiler on whatever comes.

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
            prop::collection::vec(("[ab]", inner), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn path() -> impl Strategy<Value = String> {
    let step =
        prop_oneof![Just(".a".to_owned()), Just(".b".to_owned()), Just(".[0]".to_owned()), Just(".[1]".to_owned())];
    prop::collection::vec(step, 0..4).prop_map(|steps| if steps.is_empty() { ".".into() } else { steps.concat() })
}

/// JSON as text, with what a value could not hold: fields that come twice, blanks, escapes, and numbers by their digits.
fn text() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "1.0",
        "12.10",
        "1e2",
        "9007199254740993",
        r#""""#,
        r#""a""#,
        r#""x""#,
        r#""A b""#,
        r#""\u0061""#,
        r#""\"\\\n""#,
        r#""é""#,
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 32, 4, |inner| {
        let field = (prop::sample::select(vec!["\"a\"", "\"b\"", "\"\\u0061\"", "\"c\""]), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[ {} ]", items.join(", "))),
            prop::collection::vec(field, 0..5).prop_map(|fields| {
                let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{name} :{value}")).collect();
                format!("{{{}}}", fields.join(" , "))
            }),
        ]
    })
}

/// Mostly what programs expect: an object with the fields that they name.
fn document() -> impl Strategy<Value = String> {
    let object = (text(), text(), text()).prop_map(|(a, b, c)| format!(r#"{{"a":{a}, "b" : {b}, "c":{c}}}"#));
    let nested = (text(), text()).prop_map(|(a, b)| format!(r#"{{"b":{b},"a":{{"a":{b},"b":{a}}}}}"#));
    prop_oneof![3 => object, 3 => nested, 1 => text()]
}

/// Programs of all that lifting looks at. `@` stands for a smaller program.
fn program() -> impl Strategy<Value = String> {
    const ATOMS: &[&str] = &[
        ".",
        ".a",
        ".b",
        ".a.b",
        ".a.a",
        ".a[0]",
        ".a[1].b",
        ".b?.a",
        ".[\"a\"]",
        ".a[-1]",
        ".a[]?",
        ".b[1:]",
        "..",
        "$v",
        "$w",
        "$v.a",
        "$w.b?",
        "$v[0]",
        "1",
        "-1",
        "1.0",
        "\"x\"",
        "\"a\"",
        "null",
        "true",
        "false",
        "{}",
        "[]",
        "empty",
        ".a == \"a\"",
        ".b != 1",
        ".a.b == null",
        "true == .a",
    ];
    const SHAPES: &[&str] = &[
        "(@ | @)",
        "(@, @)",
        "(@ // @)",
        "(@ == @)",
        "(@ != @)",
        "(@ < @)",
        "(@ and @)",
        "(@ or @)",
        "(@ | not)",
        "{a: @, b: @}",
        "{a: @, c: .b, d: {}, e: $v}",
        "{a, b: @}",
        "{$v, \"c d\": @}",
        "{(@ | tostring): @}",
        "[@]",
        "(if @ then @ else @ end)",
        "(if @ then @ end)",
        "(try @ catch @)",
        "(@)?",
        "(@ as $v | @)",
        "(@ as $v | {a: $v, b: @})",
        "(@ as {a: $v, b: [$w]} | [$v, $w, @])",
        "(.a as $x | $x | {a: .b, b: @})",
        "(reduce @ as $v (@; [., $v]))",
        "[foreach @ as $v (0; . + 1; [$v, ., $w])]",
        "select(@)",
        "(select(@) | @)",
        "(.a | select(@) | @)",
        "(.a | @)",
        "(.a.b | {a: @})",
        "map(@)",
        "first(@)",
        "[limit(2; @)]",
        "isempty(@)",
        "(@ | tostring)",
        "\"x\\(@)\"",
        "(@ | length)",
        "(@ | ascii_downcase)",
        "(.a |= @)",
        "(.a = @)",
        "(.a.b += @)",
        "(.a | .b = @)",
        "del(@)",
        "[path(@)]",
        "[paths]",
        "error(@)",
        "[@ | .[]?]",
        "(@ | .a)",
        "(@ | .[0]?)",
        "(@)[@]?",
        ".a[@]?",
        "-(@)",
        "any(@; @)",
        "[range(@)]",
        "(@ + @)",
        "with_entries(.value |= @)",
        "to_entries",
        "(@ | test(\"a\"))",
        "(def f: @; f)",
        "has(\"a\")",
        "label $out | (@, break $out)",
        "add(@)",
    ];
    let atom = prop::sample::select(ATOMS).prop_map(str::to_owned);
    let term = atom.prop_recursive(4, 16, 3, |inner| {
        (prop::sample::select(SHAPES), prop::collection::vec(inner, 3)).prop_map(|(shape, parts)| {
            let mut parts = parts.into_iter();
            joined(shape.split('@'), || parts.next().unwrap_or_default())
        })
    });
    term.prop_map(|term| format!(".a as $v | .b as $w | {term}"))
}

/// Pieces joined by what `between` gives.
fn joined<'p>(mut pieces: impl Iterator<Item = &'p str>, mut between: impl FnMut() -> String) -> String {
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + &between() + piece)
}

/// What a program says if its every path is taken for an error: it runs as it was written, on the whole document.
fn whole<T>(ask: impl FnOnce(Findings<'_>) -> T) -> T {
    ask(Findings { all: &[Found::Mismatch("anything")], places: &[0; 200] })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However a program is answered, it is the same answer: results, their text, and the words of an error.
    #[test]
    fn a_program_says_the_same_whichever_way_it_is_run(text in document(), program in program()) {
        let Ok(compiled) = Program::compile(&program) else { return Ok(()) };
        let json = Json::new(text.as_bytes()).unwrap();
        let words = |results: Result<Vec<Json<'_>>, Error>| {
            results.map(|all| all.into_iter().map(|json| json.into_text().into_owned()).collect::<Vec<_>>())
        };
        let expected = words(whole(|findings| compiled.eval_on(&json, findings)));
        prop_assert_eq!(words(compiled.eval(&json)), expected, "{} on {}", &program, &text);
        let expected = whole(|findings| compiled.is_true_on(&json, findings));
        prop_assert_eq!(compiled.is_true(&json), expected, "{} on {}", &program, &text);
    }
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
