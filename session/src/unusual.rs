//! What departs from the habits of a network: hour by hour, against the same hour of earlier days and weeks.
//!
//! The way of a finding: rows of statistics become [`Hours`]; [`baseline`] says what the same hour of earlier days
//! lets one expect of each number; [`judge`] measures how far the hour is from that, asks how far the hours of
//! the past have been from theirs, and keeps what stands out against both; [`fold`] puts what has one cause into
//! one [`Finding`] and hours that follow each other into one span.
//!
//! The rules that keep it honest:
//! - A number is compared with medians, its distance measured in median absolute deviations, with a floor for
//!   small counts and for habits that hardly vary.
//! - It has to depart from all of: the same hour of all earlier days, that of the same weekday, the hours before
//!   and behind it, and the trend of the last weeks. A weekend, a morning and a growing site are no findings.
//! - The network sets its own bar: what its past hours did of themselves is not unusual ([`judge::Bars`]).
//! - Sketched numbers count with the end of their bounds that speaks against a finding.
//! - Without [`Habits::MIN_DAYS`] days of history it says so, and judges nothing.
//!
//! No I/O, no clock, no randomness: the same rows give the same findings.

pub mod baseline;
pub mod fold;
pub mod hours;
pub mod judge;
pub mod kind;

pub use fold::{Also, Finding, Subject};
pub use hours::{Hour, Hours};
pub use judge::{Habits, Unusual, unusual};
pub use kind::{Family, Kind};
