//! A measurement, not a test: how long 20 000 QoS 1 messages take from publisher to subscriber.
//!
//! `cargo test --release -p groundplan-tests --test suite broker::speed -- --ignored --nocapture --test-threads 1`

use std::time::Instant;

use groundplan_tests::brokers::{Kind, TestBroker};

use super::wire::{self, publish_all, receive, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for the release profile"]
async fn twenty_thousand() {
    for round in 1..=5 {
        for kind in [Kind::Embedded, Kind::Mosquitto] {
            let broker = TestBroker::start(kind);
            let subscriber = receive(wire::options(broker.address(), "subscriber"), Some("t/#"), 20_000).await;
            let messages = (0..20_000).map(|n: u32| (format!("t/{}", n % 10), vec![7; 200], false));
            let start = Instant::now();
            publish_all(wire::options(broker.address(), "publisher"), 20_000, messages).await;
            within("all messages", subscriber).await.unwrap();
            println!("round {round}, {kind:?}: {:.3} s", start.elapsed().as_secs_f64());
        }
    }
}
