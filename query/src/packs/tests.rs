//! Which keys a filter asks for.

use super::*;
use crate::filter::Filter;

/// The sizes of the lists of keys of a filter that is one term.
fn lists(text: &str) -> Vec<(usize, KeyKind)> {
    let filter = Filter::parse(text).unwrap();
    let Expr::Atom(atom) = filter.expr() else { panic!("{text} is one term") };
    keys(atom).iter().map(|any| (any.len(), any[0].kind)).collect()
}

#[test]
fn a_term_asks_for_itself_or_for_what_is_around_it() {
    use KeyKind::{Flow, Label, Port, V4, V4Net16, V4Net24, V6, V6Net48, V6Net64, Vlan};
    assert_eq!(lists("host 10.1.2.3"), [(1, V4), (1, V4Net24)]);
    assert_eq!(lists("net 10.1.2.0/24"), [(1, V4Net24), (1, V4Net16)]);
    assert_eq!(lists("net 10.1.2.128/25"), [(1, V4Net24), (1, V4Net16)]);
    assert_eq!(lists("net 10.1.0.0/20"), [(1, V4Net16), (16, V4Net24)]);
    assert_eq!(lists("net 10.1.0.0/17"), [(1, V4Net16)]);
    assert_eq!(lists("net 10.0.0.0/12"), [(16, V4Net16)]);
    assert_eq!(lists("net 10.0.0.0/8"), []);
    assert_eq!(lists("net 10.1.2.4/30"), [(1, V4Net24), (4, V4)]);
    assert_eq!(lists("host 2001:db8::1"), [(1, V6), (1, V6Net64)]);
    assert_eq!(lists("net 2001:db8::/64"), [(1, V6Net64), (1, V6Net48)]);
    assert_eq!(lists("net 2001:db8::/32"), []);
    assert_eq!(lists("net 2001:db8::/46"), [(4, V6Net48)]);
    assert_eq!(lists("port 53"), [(1, Port)]);
    assert_eq!(lists("tcp portrange 80-95"), [(16, Port)]);
    assert_eq!(lists("portrange 80-96"), []);
    assert_eq!(lists("vlan 7"), [(1, Vlan)]);
    assert_eq!(lists("mpls 7"), [(1, Label)]);
    assert_eq!(lists("flow 10.0.0.1:1 10.0.0.2:2 tcp"), [(1, Flow), (1, V4), (1, V4)]);
    assert_eq!(lists("ether host 02:00:00:00:00:01"), []);
}

#[test]
fn only_what_every_match_has_is_asked_for() {
    let asks = |text: &str| has_keys(Filter::parse(text).unwrap().expr());
    assert!(asks("host 10.0.0.1 and tcp") && asks("tcp and inner (port 53)") && asks("port 1 or vlan 2"));
    assert!(!asks("") && !asks("tcp") && !asks("not port 53") && !asks("port 53 or tcp"));
    assert!(!asks("less 100 and not host 10.0.0.1"));
}

#[test]
fn values_of_networks_are_those_of_sidecars() {
    let Expr::Atom(atom) = Filter::parse("net 10.1.0.0/20").unwrap().expr().clone() else { panic!() };
    let values: Vec<u128> = keys(&atom)[1].iter().map(|key| key.value).collect();
    assert_eq!(values, (0x0a_01_00..0x0a_01_10).collect::<Vec<u128>>());
    let Expr::Atom(atom) = Filter::parse("net 2001:db8:0:f0::/60").unwrap().expr().clone() else { panic!() };
    let values: Vec<u128> = keys(&atom)[1].iter().map(|key| key.value).collect();
    assert_eq!(values, (0x2001_0db8_0000_00f0..0x2001_0db8_0000_0100).collect::<Vec<u128>>());
}
