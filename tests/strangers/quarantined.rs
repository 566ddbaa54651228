//! Records of a quarantine topic: a request that was kept, a mark of its replay, or foreign; a mark counts for nothing
//! that is not there.

use hookbridge::kafka::Record;
use hookbridge::replay::quarantine::{Quarantine, is_mark};

use super::dead_letters::record;

/// Parts the headers of one record from the value of another.
const PARTS: u8 = 0x1e;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let request = "hookbridge-reason\0not_valid\0hookbridge-violations\0{\"total\": 1}\0hookbridge-source\0shop\0\
        hookbridge-received-at\x002026-01-01T00:00:00Z\0hookbridge-events\x003\0hookbridge-failed\0[0,2]\0x\0y";
    let mark = r#"{"partition": 0, "offset": 17, "events": 3, "indices": [0], "result": "published", "replayed_at": "",
        "published": [{"index": 0, "event_type": "order", "event_id": "e", "topic": "t"}]}"#;
    let both = [request.as_bytes(), &[PARTS], mark.as_bytes()].concat();
    vec![both, b"hookbridge-mark\0replayed\0hookbridge-source\0shop".to_vec()]
}

pub(crate) fn meet(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == PARTS);
    let (headers, mark) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let kept = record(headers);
    let marked = is_mark(&kept);
    let mut quarantine = Quarantine::default();
    quarantine.take(kept.clone()).expect("one is not too many");
    let headers = vec![("hookbridge-mark".to_owned(), b"replayed".to_vec())];
    quarantine
        .take(Record { headers: headers.into(), value: Some(mark.to_vec()), offset: 18, ..kept })
        .expect("nor are two");
    let requests = quarantine.in_order();
    assert!(requests.len() + usize::from(marked) <= 1, "a mark is no request");
    for request in requests {
        assert!(!quarantine.standing(request).name().is_empty());
        for (events, all) in [(0, false), (1, true), (3, false)] {
            let wanted = quarantine.wanted(request, events, all);
            assert!(wanted.is_none_or(|wanted| wanted.iter().all(|index| *index < events)), "{request:?}");
        }
    }
}
