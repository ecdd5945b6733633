use std::{collections::BTreeMap, future::Future, net::SocketAddr, pin::Pin, task::Poll};

use proptest::prelude::*;

use super::*;

const LONG: Option<Duration> = Some(Duration::from_secs(60));

fn client(number: u8) -> ClientKey {
    Some(SocketAddr::from(([10, 0, 0, number], 1000))).into()
}

async fn at_once(gate: &Gate) -> Permit {
    let mut acquire = std::pin::pin!(gate.acquire(client(0), LONG));
    match futures_util::poll!(acquire.as_mut()) {
        Poll::Ready(permit) => permit.unwrap(),
        Poll::Pending => panic!("there is no place"),
    }
}

#[test]
fn there_is_one_place_fewer_than_prometheus_has() {
    assert_eq!(slots(Some("10")), 9);
    assert_eq!(slots(Some("1")), 1);
    assert_eq!(slots(Some("0")), 1);
    assert_eq!(slots(Some("many")), 9);
    assert_eq!(slots(None), 9);
}

#[test]
fn a_client_is_a_host_whatever_its_port_and_however_its_address_is_written() {
    let key = |address: &str| ClientKey::from(Some(address.parse::<SocketAddr>().unwrap()));
    assert_eq!(key("10.0.0.1:5"), key("10.0.0.1:6"));
    assert_eq!(key("10.0.0.1:5"), key("[::ffff:10.0.0.1]:6"));
    assert_ne!(key("10.0.0.1:5"), key("10.0.0.2:5"));
    assert_ne!(key("10.0.0.1:5"), ClientKey::from(None));
    assert_eq!(ClientKey::default(), ClientKey::from(None));
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_order_and_a_dropped_wait_leaves_the_queue() {
    let gate = Gate::new(1);
    let first = at_once(&gate).await;
    let mut second = Box::pin(gate.acquire(client(0), LONG));
    let mut third = Box::pin(gate.acquire(client(0), LONG));
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    assert!(futures_util::poll!(third.as_mut()).is_pending());
    assert_eq!((gate.waiting(), gate.in_flight()), (2, 1));
    drop(second);
    assert_eq!(gate.waiting(), 1);
    first.finish();
    third.await.unwrap().finish();
    assert_eq!((gate.waiting(), gate.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn clients_take_turns() {
    let gate = Gate::new(1);
    let mut permit = at_once(&gate).await;
    let mut calls = Vec::new();
    for (number, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (2, "b2"), (3, "c1")] {
        let gate = gate.clone();
        let mut call = Box::pin(async move { (name, gate.acquire(client(number), None).await.unwrap()) });
        assert!(futures_util::poll!(call.as_mut()).is_pending());
        calls.push(call);
    }
    let mut order = Vec::new();
    while !calls.is_empty() {
        permit.finish();
        let ((name, next), _, left) = futures_util::future::select_all(calls).await;
        order.push(name);
        (permit, calls) = (next, left);
    }
    assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    permit.finish();
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_what_to_do() {
    let gate = Gate::new(2);
    let _held = (at_once(&gate).await, at_once(&gate).await);
    let error = gate.acquire(client(0), Some(Duration::from_secs(5))).await.unwrap_err();
    assert!(
        error.to_string().contains("waited 5s for one of 2 remote reads"),
        "{error}"
    );
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_a_deadline_waits_until_it_is_dropped() {
    let gate = Gate::new(1);
    let _held = at_once(&gate).await;
    let wait = gate.acquire(client(0), None);
    assert!(tokio::time::timeout(Duration::from_secs(86_400), wait).await.is_err());
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_an_end() {
    let gate = Gate::new(1);
    let _held = at_once(&gate).await;
    let mut waiting: Vec<_> = (0..WAITING_MAX)
        .map(|_| Box::pin(gate.acquire(client(0), LONG)))
        .collect();
    for wait in &mut waiting {
        assert!(futures_util::poll!(wait.as_mut()).is_pending());
    }
    assert_eq!(
        gate.acquire(client(0), LONG).await.unwrap_err(),
        Shed::Full { slots: 1 }
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_can_fill_the_queue_for_others() {
    let gate = Gate::new(1);
    let held = at_once(&gate).await;
    let mut greedy: Vec<_> = (0..WAITING_MAX)
        .map(|_| Box::pin(gate.acquire(client(1), LONG)))
        .collect();
    for wait in &mut greedy {
        assert!(futures_util::poll!(wait.as_mut()).is_pending());
    }
    let mut other = Box::pin(gate.acquire(client(2), LONG));
    assert!(futures_util::poll!(other.as_mut()).is_pending());
    assert_eq!(gate.waiting(), WAITING_MAX);
    // The newest of the greedy one had to go.
    let Poll::Ready(Err(shed)) = futures_util::poll!(greedy[WAITING_MAX - 1].as_mut()) else {
        panic!("it waits")
    };
    assert_eq!(shed, Shed::Full { slots: 1 });
    assert!(futures_util::poll!(greedy[WAITING_MAX - 2].as_mut()).is_pending());
    held.finish();
    greedy.remove(0).await.unwrap().finish();
    other.await.unwrap().finish();
}

#[tokio::test(start_paused = true)]
async fn a_place_stays_taken_for_a_moment_when_an_answer_was_dropped() {
    let gate = Gate::new(1);
    drop(at_once(&gate).await);
    assert_eq!((gate.in_flight(), gate.oldest()), (1, None));
    let before = Instant::now();
    gate.acquire(client(0), LONG).await.unwrap().finish();
    assert!(before.elapsed() >= NOTICE);
}

#[test]
fn a_place_comes_back_when_the_runtime_ends() {
    let gate = Gate::new(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async { drop(at_once(&gate).await) });
    assert_eq!(gate.in_flight(), 1);
    drop(runtime);
    assert_eq!(gate.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_nobody_takes_goes_on_at_once() {
    let gate = Gate::new(1);
    let first = at_once(&gate).await;
    let mut left = Box::pin(gate.acquire(client(1), LONG));
    let mut next = Box::pin(gate.acquire(client(2), LONG));
    assert!(futures_util::poll!(left.as_mut()).is_pending());
    assert!(futures_util::poll!(next.as_mut()).is_pending());
    first.finish();
    // It has its turn, and is dropped before it looks.
    drop(left);
    let Poll::Ready(Ok(permit)) = futures_util::poll!(next.as_mut()) else {
        panic!("it waits")
    };
    permit.finish();
    assert_eq!(gate.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_is_told() {
    let gate = Gate::new(2);
    assert_eq!(gate.oldest(), None);
    let first = at_once(&gate).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let second = at_once(&gate).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(gate.oldest(), Some(Duration::from_secs(7)));
    first.finish();
    assert_eq!(gate.oldest(), Some(Duration::from_secs(2)));
    drop(second);
    assert_eq!(gate.oldest(), None);
}

#[tokio::test(start_paused = true)]
async fn places_can_become_more_and_fewer() {
    let gate = Gate::new(3);
    let passes = [at_once(&gate).await, at_once(&gate).await, at_once(&gate).await];
    gate.set_slots(1);
    for permit in passes {
        assert!(futures_util::poll!(std::pin::pin!(gate.acquire(client(0), LONG))).is_pending());
        permit.finish();
    }
    let only = at_once(&gate).await;
    assert!(futures_util::poll!(std::pin::pin!(gate.acquire(client(0), LONG))).is_pending());
    gate.set_slots(2);
    at_once(&gate).await.finish();
    only.finish();
    assert_eq!(gate.in_flight(), 0);
}

/// What happens to the gate.
#[derive(Clone, Debug)]
enum Step {
    Enter(u8),
    /// A call that waits, or whose turn has come and that has not looked, is dropped.
    Leave(usize),
    /// Calls look whether it is their turn.
    Look,
    Finish(usize),
    Drop(usize),
    Places(usize),
    Pause,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_u8).prop_map(Step::Enter),
        2 => any::<usize>().prop_map(Step::Leave),
        3 => Just(Step::Look),
        3 => any::<usize>().prop_map(Step::Finish),
        1 => any::<usize>().prop_map(Step::Drop),
        1 => (1..5_usize).prop_map(Step::Places),
        1 => Just(Step::Pause),
    ];
    proptest::collection::vec(step, 1..80)
}

type Call = Pin<Box<dyn Future<Output = Result<Permit, Shed>>>>;

/// A gate with everybody around it.
struct World {
    gate: Gate,
    slots: usize,
    /// Client, number of arrival, the call; in the order of arrival.
    waiting: Vec<(u8, usize, Call)>,
    out: Vec<Permit>,
    arrived: usize,
    /// Clients in the order of their turns, while they wait; told by rules of this test alone.
    turns: Vec<u8>,
}

impl World {
    fn new() -> Self {
        Self {
            gate: Gate::new(2),
            slots: 2,
            waiting: Vec::new(),
            out: Vec::new(),
            arrived: 0,
            turns: Vec::new(),
        }
    }

    async fn apply(&mut self, step: Step) {
        match step {
            Step::Enter(number) => {
                let gate = self.gate.clone();
                let mut call: Call = Box::pin(async move { gate.acquire(client(number), None).await });
                self.arrived += 1;
                match futures_util::poll!(call.as_mut()) {
                    Poll::Ready(permit) => self.out.push(permit.unwrap()),
                    Poll::Pending => self.waiting.push((number, self.arrived, call)),
                }
            }
            Step::Leave(at) if !self.waiting.is_empty() => {
                let at = at % self.waiting.len();
                drop(self.waiting.remove(at));
            }
            Step::Look => self.poll_all().await,
            Step::Finish(at) if !self.out.is_empty() => {
                let at = at % self.out.len();
                self.out.swap_remove(at).finish();
            }
            Step::Drop(at) if !self.out.is_empty() => {
                let at = at % self.out.len();
                drop(self.out.swap_remove(at));
            }
            Step::Places(slots) => {
                self.slots = slots;
                self.gate.set_slots(slots);
            }
            Step::Pause => tokio::time::sleep(2 * NOTICE).await,
            Step::Leave(_) | Step::Finish(_) | Step::Drop(_) => {}
        }
    }

    /// All look; who gets a pass is the first of its client.
    async fn poll_all(&mut self) {
        let (mut at, mut passed_over) = (0, BTreeMap::new());
        while at < self.waiting.len() {
            let (number, arrived, call) = &mut self.waiting[at];
            match futures_util::poll!(call.as_mut()) {
                Poll::Ready(permit) => {
                    assert!(
                        !passed_over.contains_key(number),
                        "{arrived} of {number} overtook {passed_over:?}"
                    );
                    self.out.push(permit.unwrap());
                    self.turns.push(*number);
                    drop(self.waiting.remove(at));
                }
                Poll::Pending => {
                    passed_over.entry(*number).or_insert(*arrived);
                    at += 1;
                }
            }
        }
    }

    /// Nobody waits while there is a place, and no place is lost or made.
    fn check(&self) {
        let (waiting, taken) = (self.gate.waiting(), self.gate.in_flight());
        assert!(waiting == 0 || taken >= self.slots, "{waiting} wait, {taken} are taken");
        assert!(waiting <= self.waiting.len() && taken >= self.out.len());
    }
}

proptest! {
    #[test]
    fn no_place_is_lost_and_nobody_is_forgotten_whatever_happens(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.apply(step).await;
                world.check();
            }
            // All come to their turn once those who are out are done.
            while !world.waiting.is_empty() || !world.out.is_empty() {
                for permit in std::mem::take(&mut world.out) {
                    permit.finish();
                }
                tokio::time::sleep(2 * NOTICE).await;
                let before = world.waiting.len();
                world.poll_all().await;
                assert!(before == 0 || world.waiting.len() < before, "{before} wait for ever");
                world.check();
            }
            tokio::time::sleep(2 * NOTICE).await;
            assert_eq!((world.gate.waiting(), world.gate.in_flight(), world.gate.oldest()), (0, 0, None));
        });
    }

    /// Between two turns of a client each other one that waits all the time has one.
    #[test]
    fn the_turns_of_clients_that_wait_are_even(calls in proptest::collection::vec(0..5_u8, 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.apply(Step::Places(1)).await;
            world.apply(Step::Enter(9)).await;
            let mut left = BTreeMap::new();
            for call in calls {
                *left.entry(call).or_insert(0) += 1;
                world.apply(Step::Enter(call)).await;
            }
            while !world.waiting.is_empty() {
                world.apply(Step::Finish(0)).await;
                world.apply(Step::Look).await;
            }
            let turns = &world.turns;
            for (at, client) in turns.iter().enumerate() {
                let between = turns[..at].iter().rev().take_while(|other| *other != client);
                let between: Vec<_> = between.collect();
                if between.len() < at {
                    let waits = |(other, count): (&u8, &usize)| (other != client && *count > 0).then_some(*other);
                    for other in left.iter().filter_map(waits) {
                        assert!(between.contains(&&other), "{turns:?}: {other} missed a turn before {at}");
                    }
                }
                *left.get_mut(client).unwrap() -= 1;
            }
        });
    }
}
