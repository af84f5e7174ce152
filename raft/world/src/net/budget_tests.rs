use super::*;
use crate::net::Limits;
use std::task::Waker;

const LIMITS: fn() -> Limits = || Limits {
    memory: 64 << 20,
    max_connections: 56,
    reserve: 8,
    ..Limits::default()
};

fn poll(share: &mut Share, held: usize, more: usize) -> bool {
    share.poll_room(held, more, &mut Context::from_waker(Waker::noop()))
}

#[test]
fn the_parts_are_no_more_than_the_budget() {
    let limits = LIMITS();
    let Division {
        own,
        clients,
        members,
    } = Division::of(&limits);
    assert_eq!((own, clients, members), (256 << 10, 20 << 20, 12 << 20));
    let all = own * (limits.max_connections + limits.reserve) + clients + members + limits.unsent();
    assert_eq!(all, limits.memory);
}

#[test]
fn the_longest_frame_fits_into_each_pool_of_the_least_budget() {
    let limits = Limits {
        memory: crate::net::LEAST_MEMORY,
        ..Limits::default()
    };
    let budget = Budget::new(&limits);
    for (guest, bytes) in [(Guest::Member, 12 << 20), (Guest::Client, 20 << 20)] {
        let mut share = budget.share(guest);
        assert_eq!(share.pool.bytes, bytes);
        assert!(poll(&mut share, 0, limits.max_frame + crate::net::HEADER));
    }
}

#[test]
fn a_connection_has_its_own_whatever_others_hold() {
    let budget = Budget::new(&LIMITS());
    let mut hogs: Vec<Share> = Vec::new();
    for _ in 0..40 {
        let mut hog = budget.share(Guest::Client);
        poll(&mut hog, 0, 10 << 20);
        hogs.push(hog);
    }
    let mut small = budget.share(Guest::Client);
    assert!(poll(&mut small, 0, 256 << 10));
    assert!(!poll(&mut small, 256 << 10, 1), "the rest is in a queue");
    let mut member = budget.share(Guest::Member);
    assert!(
        poll(&mut member, 0, 10 << 20),
        "members have their own pool"
    );
}

#[test]
fn room_is_given_in_the_order_it_was_asked_for() {
    let budget = Budget::new(&LIMITS());
    let mut shares: Vec<Share> = (0..4).map(|_| budget.share(Guest::Client)).collect();
    let given: Vec<bool> = shares
        .iter_mut()
        .map(|share| poll(share, 0, 9 << 20))
        .collect();
    assert_eq!(given, [true, true, false, false]);
    // One that asks for little comes after those who wait.
    let mut late = budget.share(Guest::Client);
    assert!(!poll(&mut late, 0, 512 << 10));
    assert!(shares[0].is_wanted() && !shares[2].is_wanted());
    shares[0].keep(0);
    assert!(!poll(&mut late, 0, 512 << 10));
    assert!(!poll(&mut shares[3], 0, 9 << 20));
    assert!(poll(&mut shares[2], 0, 9 << 20));
    // A place that is given up is the next one's.
    shares.remove(3);
    assert!(poll(&mut late, 0, 512 << 10));
}

/// Requests that end wake the connection again and again; its long frame keeps its place.
#[test]
fn a_look_for_little_does_not_lose_the_place_of_much() {
    let budget = Budget::new(&LIMITS());
    let mut shares: Vec<Share> = (0..4).map(|_| budget.share(Guest::Client)).collect();
    assert!(poll(&mut shares[0], 0, 9 << 20) && poll(&mut shares[1], 0, 9 << 20));
    assert!(!poll(&mut shares[2], 1 << 10, 9 << 20), "it waits");
    assert!(!poll(&mut shares[3], 0, 9 << 20), "behind it");
    assert!(shares[2].has(2 << 10) && shares[2].is_waiting());
    shares[0].keep(0);
    assert!(!poll(&mut shares[3], 0, 9 << 20));
    assert!(poll(&mut shares[2], 1 << 10, 9 << 20));
}

#[test]
fn who_waits_keeps_no_more_than_it_holds() {
    let budget = Budget::new(&LIMITS());
    let mut shares: Vec<Share> = (0..3).map(|_| budget.share(Guest::Client)).collect();
    for (share, held) in shares.iter_mut().zip([5 << 20, 5 << 20, 9 << 20]) {
        assert!(poll(share, 0, held));
    }
    let [first, second, _third] = &mut shares[..] else {
        unreachable!("three");
    };
    assert!(!poll(first, 5 << 20, 4 << 20) && !poll(second, 5 << 20, 4 << 20));
    // They wait for each other, until what they hold is served.
    for share in [&mut *first, &mut *second] {
        share.keep(1 << 20);
        assert!(share.granted() < 2 << 20);
    }
    assert!(poll(first, 1 << 20, 4 << 20) && poll(second, 1 << 20, 4 << 20));
}

#[test]
fn all_room_comes_back() {
    let budget = Budget::new(&LIMITS());
    {
        let mut share = budget.share(Guest::Client);
        assert!(poll(&mut share, 0, 3 << 20));
        share.keep(0);
        assert!(share.granted() <= share.own + 4 * BLOCK);
        let mut hog = budget.share(Guest::Client);
        assert!(poll(&mut hog, 0, 10 << 20));
        let mut waiting = budget.share(Guest::Client);
        assert!(!poll(&mut waiting, 0, 10 << 20));
    }
    let pool = &budget.clients;
    assert_eq!(pool.free.available_permits(), pool.bytes);
    assert_eq!(pool.waiting.load(Ordering::Relaxed), 0);
}
