use super::*;

fn assert_send_sync_debug<T: Send + Sync + fmt::Debug>() {}

#[test]
fn public_types_are_send_sync_and_debug() {
    assert_send_sync_debug::<System>();
    assert_send_sync_debug::<View>();
    assert_send_sync_debug::<Stall>();
}

#[test]
fn the_strictest_of_machine_and_cgroups_counts() {
    let rooms = [Room { limit_bytes: 500, available_bytes: 300 }, Room { limit_bytes: 800, available_bytes: 100 }];
    let stall = Some(Stall { some_percent_avg10: 1.0, full_percent_avg10: 0.5 });
    let view = View::narrowed(View::new(1000, 700), rooms, stall);
    assert_eq!(view, View { total_bytes: 500, available_bytes: 100, stall });
    assert_eq!(View::narrowed(View::new(1000, 50), rooms, None), View::new(500, 50));
    assert_eq!(View::narrowed(View::new(1000, 700), [], None), View::new(1000, 700));
}

#[test]
fn a_cgroup_is_enough_to_know_something_and_nothing_is_not() {
    let room = Room { limit_bytes: 500, available_bytes: 300 };
    assert_eq!(View::narrowed(View::UNKNOWN, [room], None), View::new(500, 300));
    assert!(!View::narrowed(View::UNKNOWN, [], None).is_known());
}

#[test]
fn a_limit_of_nothing_is_known() {
    let room = Room { limit_bytes: 0, available_bytes: 0 };
    let view = View::narrowed(View::new(1000, 700), [room], None);
    assert!(view.is_known());
    assert_eq!(view.available_bytes, 0);
}

#[test]
fn the_real_machine_gives_plausible_figures() {
    let mut system = System::new();
    for _ in 0..2 {
        let view = system.look();
        assert!(view.is_known(), "{view:?}");
        assert!(view.available_bytes <= view.total_bytes, "{view:?}");
    }
}
