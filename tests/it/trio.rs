//! The harness itself: what it starts is really there.

use crate::harness::postgres::Database;
use crate::harness::services;

#[tokio::test]
async fn the_services_of_the_tests_are_real() {
    let services = services();
    assert!(services.read(&["a-topic-that-nobody-created"]).is_empty());

    let database = Database::create(&services.postgres).await;
    let row = database.connect().await.query_one("SHOW server_version_num", &[]).await.expect("a version");
    assert!(row.get::<_, String>(0).parse::<u32>().expect("a number") >= 150_000);

    let subjects = reqwest::get(format!("{}/subjects", services.registry)).await.expect("the registry answers");
    assert_eq!(subjects.status(), 200);
}
