use super::*;
use crate::protocol::codes::ReplyError;

fn echo(_: ShardId, request: &Request) -> Option<Response> {
    match request {
        Request::Drain { millis } => Some(Response::Done { count: *millis }),
        Request::Publish { .. } => Some(Response::Published { position: None }),
        _ => None,
    }
}

fn publish(bytes: usize) -> Request {
    Request::Publish {
        channel: "a".into(),
        publication: vec![0; bytes],
        json: false,
        skip_history: false,
    }
}

#[tokio::test]
async fn many_questions_through_a_ring_of_one_are_all_answered_in_order() {
    let node = node_with_capacity(1, echo);
    let mut asks = Vec::new();
    for millis in 0..2000 {
        asks.push(
            node.control
                .shards()
                .start(ShardId((millis % 2) as u16), Request::Drain { millis })
                .await,
        );
    }
    for (millis, ask) in asks.into_iter().enumerate() {
        assert!(matches!(ask.answer().await, Response::Done { count } if count == millis as u64));
    }
    for shard in 0..2 {
        let seen: Vec<u64> = node
            .asked()
            .iter()
            .filter(|(s, _)| s.0 == shard)
            .map(|(_, request)| {
                if let Request::Drain { millis } = request {
                    *millis
                } else {
                    u64::MAX
                }
            })
            .collect();
        assert!(seen.is_sorted());
        assert_eq!(seen.len(), 1000);
    }
}

#[tokio::test]
async fn bursts_with_pauses_never_miss_a_wake() {
    let node = node(echo);
    for round in 0..300u64 {
        let (a, b) = (round % 7, round % 3);
        for millis in 0..=a {
            let answer = node
                .control
                .shards()
                .ask(ShardId((millis % 2) as u16), Request::Drain { millis })
                .await;
            assert!(matches!(answer, Response::Done { count } if count == millis));
        }
        if b == 0 {
            tokio::time::sleep(Duration::from_micros(100 * a)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_shard_is_error_100_after_the_patience() {
    let node = node(|_, _| None);
    let before = tokio::time::Instant::now();
    let answer = node.control.shards().ask(ShardId(1), Request::Stats).await;
    assert!(matches!(
        answer,
        Response::Failed(ReplyError { code: 100, .. })
    ));
    assert!(before.elapsed() >= super::super::peers::PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn a_full_window_holds_callers_back_but_not_the_drain() {
    let node = node(|_, request| match request {
        Request::Drain { .. } => Some(Response::Done { count: 0 }),
        _ => None,
    });
    let shards = node.control.shards();
    let first = shards.start(ShardId(0), publish(5 << 20)).await;
    let second =
        tokio::time::timeout(Duration::from_secs(1), shards.start(ShardId(0), publish(1))).await;
    assert!(second.is_err(), "no room until the first is answered");
    // The other shard has a window of its own.
    let _other = shards.start(ShardId(1), publish(1)).await;
    let drained = tokio::time::timeout(
        Duration::from_secs(3600),
        shards.start(ShardId(0), Request::Drain { millis: 0 }),
    );
    drop(drained.await.expect("no window is needed"));
    drop(first);
}

#[tokio::test]
async fn the_driver_ends_with_the_last_handle() {
    let (waker, eventfd) = Waker::eventfd().unwrap();
    let (shards, driver) = shards(Vec::new(), &waker, eventfd, Homes::new(home, home), None);
    let driver = tokio::spawn(driver.run());
    drop(shards);
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn asks_outlive_the_driver_as_error_100() {
    let (waker, eventfd) = Waker::eventfd().unwrap();
    let (outbox, _inbox) = pair(1, Waker::none());
    let (_outbox, inbox) = pair(1, waker.clone());
    let (shards, driver) = shards(
        vec![Link { outbox, inbox }],
        &waker,
        eventfd,
        Homes::new(home, home),
        None,
    );
    drop(driver);
    let answer = shards.ask(ShardId(0), Request::Stats).await;
    assert!(matches!(answer, Response::Failed(ReplyError::INTERNAL)));
}
