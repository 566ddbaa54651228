use serde_json::json;

use super::*;

fn report(vectors: &Value, provider: Option<&str>) -> (Report, String) {
    let mut text = Vec::new();
    let report = run(&vectors.to_string(), provider, &mut text).unwrap();
    (report, String::from_utf8(text).unwrap())
}

fn vendor_vector() -> Value {
    let text = include_str!("../../../tests/vectors/standard_webhooks.json");
    serde_json::from_str::<Vec<Value>>(text).unwrap().remove(0)
}

#[test]
fn every_vector_of_the_vendors_comes_out_as_it_expects() {
    let files = [
        (include_str!("../../../tests/vectors/github.json"), 7),
        (include_str!("../../../tests/vectors/hubspot.json"), 9),
        (include_str!("../../../tests/vectors/mailgun.json"), 7),
        (include_str!("../../../tests/vectors/meta.json"), 8),
        (include_str!("../../../tests/vectors/paddle.json"), 7),
        (include_str!("../../../tests/vectors/segment.json"), 6),
        (include_str!("../../../tests/vectors/sendgrid.json"), 8),
        (include_str!("../../../tests/vectors/shopify.json"), 6),
        (include_str!("../../../tests/vectors/slack.json"), 8),
        (include_str!("../../../tests/vectors/square.json"), 6),
        (include_str!("../../../tests/vectors/standard_webhooks.json"), 16),
        (include_str!("../../../tests/vectors/stripe.json"), 9),
        (include_str!("../../../tests/vectors/typeform.json"), 5),
        (include_str!("../../../tests/vectors/zendesk.json"), 7),
    ];
    for (text, count) in files {
        let mut out = Vec::new();
        let report = run(text, None, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("{count} passed, 0 failed\n"));
        assert_eq!(report, Report { passed: count, failed: 0 });
    }
}

#[test]
fn every_vector_of_our_own_comes_out_as_it_expects() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/ours");
    let (mut providers, mut all) = (std::collections::BTreeSet::new(), Report::default());
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let Some(provider) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else {
            continue;
        };
        providers.insert(provider.replace('_', "-"));
        let mut out = Vec::new();
        let report = run(&std::fs::read_to_string(&path).unwrap(), None, &mut out).unwrap();
        assert_eq!(report.failed, 0, "{}", String::from_utf8_lossy(&out));
        all.passed += report.passed;
    }
    let expected = catalog::preset_names().chain(["private"]).map(str::to_owned);
    assert_eq!(providers, expected.collect(), "a file for each preset, and one for private schemes");
    assert!(all.passed >= 600, "{all:?}");
}

#[test]
fn a_source_without_a_preset_is_tried_by_the_description_that_its_vector_brings() {
    let mut vector = vendor_vector();
    let mut description = json!({ "signature": {
        "algorithm": "hmac-sha256", "header": "webhook-signature", "prefix": "v1,", "encoding": "base64",
        "key": { "prefix": "whsec_", "encoding": "base64" },
        "signed": "{header:webhook-id}.{header:webhook-timestamp}.{body}",
    } });
    vector["provider"] = json!("of_my_own");
    vector["config"] = json!({ "description": description.clone() });
    let (count, text) = report(&json!([vector]), None);
    assert_eq!(count.passed, 1, "{text}");
    description["signature"]["headr"] = json!("x");
    vector["config"] = json!({ "description": description });
    let (_, text) = report(&json!([vector]), None);
    assert!(text.contains("not run: config.description: unknown field `headr`"), "{text}");
}

#[test]
fn a_mismatch_says_what_was_expected_and_why_it_came_out_otherwise() {
    let mut vector = vendor_vector();
    vector["body_base64"] = json!("e30=");
    let (count, text) = report(&json!([vector]), None);
    assert_eq!(count, Report { passed: 0, failed: 1 });
    assert_eq!(
        text,
        "standard_webhooks/hmac_vendor_vector: expected accept (published v1 signature), got reject (no_match)\n\
         0 passed, 1 failed\n"
    );
}

#[test]
fn what_a_vector_asks_for_and_is_not_known_fails_by_name() {
    let mut vector = vendor_vector();
    vector["provider"] = json!("no_such");
    let (_, text) = report(&json!([vector]), None);
    assert!(text.contains("not run: there is no preset `no-such`"), "{text}");
    assert_eq!(report(&json!([vector]), Some("standard_webhooks")).0.passed, 1);

    vector["config"] = json!({"moon_phase": "full"});
    let (count, text) = report(&json!([vector, {"name": "half"}]), Some("standard-webhooks"));
    assert_eq!(count.failed, 2);
    assert!(text.contains("config.moon_phase is no setting") && text.contains("half: not run:"), "{text}");
}

#[test]
fn settings_of_a_vector_are_laid_over_the_preset() {
    let mut vector = vendor_vector();
    vector["now_unix"] = json!(1_614_265_330 + 60);
    vector["config"] = json!({"tolerance_secs": 60});
    assert_eq!(report(&json!([vector]), None).0.passed, 1);
    vector["config"] = json!({"tolerance_secs": 59});
    assert_eq!(report(&json!([vector]), None).0.failed, 1);

    vector["config"] = json!({"header_prefix": "acme-"});
    let headers = vector["headers"].as_object().unwrap().clone();
    vector["headers"] = headers.into_iter().map(|(name, value)| (name.replace("webhook-", "ACME-"), value)).collect();
    assert_eq!(report(&json!([vector]), None).0.passed, 1);
    vector["config"] = json!({"header_prefix": "acme-", "alg": "ed25519"});
    let (_, text) = report(&json!([vector]), None);
    assert!(text.contains("the configuration is refused: secret 0 begins with none"), "{text}");
}

/// The vector of that name.
fn named(file: &str, name: &str) -> Value {
    let vectors: Vec<Value> = serde_json::from_str(file).unwrap();
    vectors.into_iter().find(|vector| vector["name"] == name).unwrap()
}

#[test]
fn a_token_that_was_seen_before_is_rejected() {
    let mut vector = named(include_str!("../../../tests/vectors/mailgun.json"), "mailgun/go_sdk_test_vector");
    vector["precondition"] = json!({"seen_replay_keys": ["another"]});
    assert_eq!(report(&json!([vector]), None).0.passed, 1);
    vector["precondition"] = json!({"seen_replay_keys": ["another", "token"]});
    let (_, text) = report(&json!([vector]), None);
    assert!(text.contains("got reject (its replay key was seen before)"), "{text}");
}

#[test]
fn the_answer_to_a_handshake_is_compared_with_what_is_expected() {
    let good = named(include_str!("../../../tests/vectors/meta.json"), "meta/get_challenge_ok");
    for (expected, told) in [
        (json!({"status": 200, "body_any_of": ["no", "1158201444"]}), None),
        (json!({"body_any_of": [{"a": 1}, 1_158_201_444]}), None),
        (json!({"json": 1_158_201_444}), None),
        (json!({"status": 204}), Some("expected the status 204, got 200")),
        (json!({"body": "1"}), Some("expected the answer \"1\", got \"1158201444\"")),
        (json!({"body_any_of": ["1"]}), Some("expected one of")),
        (json!({"json": {"challenge": "1"}}), Some("expected the answer {\"challenge\":\"1\"}")),
    ] {
        let mut vector = good.clone();
        vector["expect_response"] = expected.clone();
        let (count, text) = report(&json!([vector]), None);
        assert_eq!(count.failed, usize::from(told.is_some()), "{expected}: {text}");
        assert!(told.is_none_or(|told| text.contains(told)), "{expected}: {text}");
    }
    let mut event = named(include_str!("../../../tests/vectors/meta.json"), "meta/valid_escaped_unicode");
    event["handshake"] = json!(true);
    let (_, text) = report(&json!([event]), None);
    assert!(text.contains("expected a handshake") && text.contains("got an event"), "{text}");
}

#[test]
fn settings_that_a_provider_has_are_its_own() {
    let batch = named(include_str!("../../../tests/vectors/segment.json"), "segment/batch_signs_first_event_only");
    let sendgrid = named(include_str!("../../../tests/vectors/sendgrid.json"), "sendgrid/vendor_vector");
    let hubspot = named(include_str!("../../../tests/vectors/hubspot.json"), "hubspot/v1_vendor_vector");
    for (vector, config, failed) in [
        (&batch, json!({}), 0),
        (&batch, json!({"segment_batch_first_event_signature": false}), 1),
        (&sendgrid, json!({"key_type": "rsa"}), 1),
        (&batch, json!({"key_type": "ecdsa_p256_spki_base64"}), 1),
        (&hubspot, json!({}), 0),
        (&hubspot, json!({"signature_version": "v2"}), 1),
        (&hubspot, json!({"signature_version": "v3"}), 1),
    ] {
        let mut vector = vector.clone();
        vector["config"] = config.clone();
        assert_eq!(report(&json!([vector]), None).0.failed, failed, "{config}");
    }
}

#[test]
fn requests_that_no_configuration_or_no_wire_would_carry_are_rejected() {
    for (key, value) in [
        ("secrets", json!([])),
        ("secrets", json!([""])),
        ("secrets", json!(["whsec_"])),
        ("secrets", json!(["whsec_%%%%"])),
        ("headers", json!({"webhook-id": "a\u{0}b"})),
    ] {
        let mut vector = vendor_vector();
        vector[key] = value;
        vector["expect"] = json!("reject");
        let (count, text) = report(&json!([vector]), None);
        assert_eq!(count.passed, 1, "{key}: {text}");
    }
}

#[test]
fn a_file_without_vectors_is_an_error() {
    assert!(matches!(run("[]", None, &mut Vec::new()), Err(Error::Empty)));
    assert!(matches!(run("{}", None, &mut Vec::new()), Err(Error::NotAList(_))));
}
