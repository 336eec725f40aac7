//! What the filters of a query say of time: the range outside of which no file need be opened.
//!
//! Of a row's times only this is used: it ends at `end`, begins at `start`, and no other time of it is
//! later than `end`. Whatever is not understood bounds nothing.

use arrow_schema::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use tapedeck_index::table::Kind;
use tapedeck_index::table::encode::time;
use tapedeck_packet::Timestamp;

/// Rows outside of this cannot match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// No matching row ends before.
    pub(super) from: Timestamp,
    /// No matching row begins at or behind; `None`: no such bound.
    pub(super) to: Option<Timestamp>,
}

/// The bounds that `filters`, all of which must hold, set.
pub(super) fn bounds(kind: &Kind, filters: &[Expr]) -> Bounds {
    let mut bounds = Bounds { from: Timestamp::ZERO, to: None };
    filters.iter().for_each(|filter| narrow(kind, filter, &mut bounds));
    bounds
}

fn narrow(kind: &Kind, filter: &Expr, bounds: &mut Bounds) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            narrow(kind, left, bounds);
            narrow(kind, right, bounds);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if let (Some(column), Some(nanos)) = (column(left), nanos(right)) {
                compare(kind, column, *op, nanos, bounds);
            } else if let (Some(nanos), Some(column), Some(op)) = (nanos(left), column(right), op.swap()) {
                compare(kind, column, op, nanos, bounds);
            }
        }
        Expr::Between(between) if !between.negated => {
            if let (Some(column), Some(low), Some(high)) =
                (column(&between.expr), nanos(&between.low), nanos(&between.high))
            {
                compare(kind, column, Operator::GtEq, low, bounds);
                compare(kind, column, Operator::LtEq, high, bounds);
            }
        }
        _ => {}
    }
}

fn compare(kind: &Kind, column: &str, op: Operator, nanos: i64, bounds: &mut Bounds) {
    let is_time = kind
        .columns
        .iter()
        .any(|c| c.name == column && c.kind == tapedeck_index::table::ColumnType::Time && c.name != "as_of");
    if !is_time {
        return;
    }
    let (lower, upper) = match op {
        Operator::Eq => (true, true),
        Operator::Gt | Operator::GtEq => (true, false),
        Operator::Lt | Operator::LtEq => (false, true),
        _ => return,
    };
    if lower {
        bounds.from = bounds.from.max(time(nanos));
    }
    // A row that begins or ends before a time begins before it; its first packet may lie anywhere earlier.
    if upper && (column == kind.start || column == kind.end) {
        let to = time(nanos).saturating_add(1);
        bounds.to = Some(bounds.to.map_or(to, |old| old.min(to)));
    }
}

fn column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(column.name()),
        // A cast to another name of UTC: still nanoseconds.
        Expr::Cast(cast)
            if matches!(cast.field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, Some(_))) =>
        {
            column(&cast.expr)
        }
        _ => None,
    }
}

/// A literal time, in ns.
fn nanos(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::TimestampNanosecond(nanos, _) => *nanos,
        ScalarValue::TimestampMicrosecond(micros, _) => micros.as_ref()?.checked_mul(1_000),
        ScalarValue::TimestampMillisecond(millis, _) => millis.as_ref()?.checked_mul(1_000_000),
        ScalarValue::TimestampSecond(seconds, _) => seconds.as_ref()?.checked_mul(1_000_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    //! A bound never excludes what a filter lets through.

    use super::*;
    use datafusion::prelude::{col, lit};
    use tapedeck_index::table::SESSIONS;

    fn at(nanos: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(nanos), Some("UTC".into())))
    }

    fn of(filters: &[Expr]) -> (u64, Option<u64>) {
        let Bounds { from, to } = bounds(&SESSIONS, filters);
        (from.nanos(), to.map(Timestamp::nanos))
    }

    #[test]
    fn times_bound_from_both_sides() {
        assert_eq!(of(&[]), (0, None));
        assert_eq!(of(&[col("ts_last").gt_eq(at(5)), col("ts_interval").lt(at(9))]), (5, Some(10)));
        assert_eq!(of(&[at(5).lt_eq(col("ts")).and(col("proto").eq(lit(6u8)))]), (5, None));
        assert_eq!(of(&[col("ts_last").between(at(3), at(8))]), (3, Some(9)));
        assert_eq!(of(&[col("ts_interval").eq(at(4))]), (4, Some(5)));
        let micros = lit(ScalarValue::TimestampMicrosecond(Some(7), None));
        assert_eq!(of(&[col("ts_last").gt(micros)]), (7_000, None));
    }

    #[test]
    fn what_is_no_bound_bounds_nothing() {
        // The first packet of a session may lie long before the record.
        assert_eq!(of(&[col("ts").lt(at(9))]), (0, None));
        assert_eq!(of(&[col("as_of").gt(at(9))]), (0, None));
        assert_eq!(of(&[col("duration_ns").gt(at(9))]), (0, None));
        assert_eq!(of(&[col("ts_last").gt(at(9)).or(col("proto").eq(lit(6u8)))]), (0, None));
        assert_eq!(of(&[col("ts_last").not_eq(at(9))]), (0, None));
        assert_eq!(of(&[Expr::Not(Box::new(col("ts_last").gt(at(9))))]), (0, None));
    }
}
