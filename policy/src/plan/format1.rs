//! Reads plans of the format before this one, `penstock-plan/1`.
//!
//! Each field that came with `penstock-plan/2` is given the value that means what such a plan meant. A plan of the format
//! before that has one of them nevertheless is refused, as is any other field that its format does not know.

use serde_json::{Map, Value, json};

use super::{Observing, PLAN_FORMAT, Plan, PlanError};
use crate::model::{Answers, Enforcement};

/// The plan that `bytes` of the format before mean.
pub(super) fn read(bytes: &[u8]) -> Result<Plan, PlanError> {
    let mut plan: Map<String, Value> = serde_json::from_slice(bytes).map_err(PlanError::Unreadable)?;
    if plan.contains_key("grants") {
        return Err(PlanError::Malformed(
            "`grants` is not a field of a plan in the previous format".to_owned(),
        ));
    }
    plan.insert("format".to_owned(), PLAN_FORMAT.into());
    each(&mut plan, "interfaces", interface)?;
    each(&mut plan, "rules", rule)?;
    serde_json::from_value(Value::Object(plan)).map_err(PlanError::Unreadable)
}

/// A whole side observed or enforced.
fn interface(side: &mut Map<String, Value>) -> Result<(), PlanError> {
    let mode = side
        .remove("enforcement")
        .ok_or_else(|| PlanError::Malformed("an interface has no `enforcement`".to_owned()))?;
    let mode: Enforcement = serde_json::from_value(mode).map_err(PlanError::Unreadable)?;
    let observing = serde_json::to_value(Observing::from(mode)).map_err(PlanError::Unreadable)?;
    add(side, "observing", observing)?;
    // Such a plan does not know its routers: whoever could be one is taken for one, as it was.
    add(side, "routers", json!(["0.0.0.0/0", "::/0"]))?;
    add(side, "hardware", json!([]))
}

/// Answers were matched strictly.
fn rule(rule: &mut Map<String, Value>) -> Result<(), PlanError> {
    let answers = serde_json::to_value(Answers::Strict).map_err(PlanError::Unreadable)?;
    add(rule, "answers", answers)
}

/// Converts each record of a list. What is no list, or no record, is refused with the rest.
fn each(
    plan: &mut Map<String, Value>,
    list: &str,
    convert: fn(&mut Map<String, Value>) -> Result<(), PlanError>,
) -> Result<(), PlanError> {
    let items = plan.get_mut(list).and_then(Value::as_array_mut);
    let mut records = items.into_iter().flatten().filter_map(Value::as_object_mut);
    records.try_for_each(convert)
}

/// Gives a record a field that its format does not have.
fn add(record: &mut Map<String, Value>, field: &str, value: Value) -> Result<(), PlanError> {
    match record.insert(field.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(PlanError::Malformed(format!(
            "`{field}` is not a field of a plan in the previous format"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan of the waterworks as the version before wrote it: the safety zone observes, and so does the office, which lies
    /// behind the side of the control room, which enforces.
    const STORED: &[u8] = include_bytes!("../../fixtures/plan-format-1.json");

    #[test]
    fn a_plan_of_the_format_before_goes_on_meaning_what_it_meant() {
        let plan = Plan::from_bytes(STORED).unwrap();
        assert_eq!(plan.format, PLAN_FORMAT);
        let observing: Vec<_> = plan
            .interfaces
            .iter()
            .map(|side| (side.name.as_str(), &side.observing))
            .collect();
        assert_eq!(
            observing,
            [
                ("eth1", &Observing::Nothing),
                ("eth2", &Observing::Nothing),
                ("eth3", &Observing::Everything),
            ]
        );
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
    }

    #[test]
    fn nothing_else_of_it_is_read_otherwise() {
        let mut read: Value = serde_json::from_slice(&Plan::from_bytes(STORED).unwrap().to_bytes()).unwrap();
        for rule in read["rules"].as_array_mut().unwrap() {
            assert_eq!(
                rule.as_object_mut().unwrap().remove("answers"),
                Some("strict".into())
            );
        }
        let stored: Value = serde_json::from_slice(STORED).unwrap();
        for (field, value) in stored.as_object().unwrap() {
            if !["format", "interfaces"].contains(&field.as_str()) {
                assert_eq!(&read[field], value, "{field}");
            }
        }
    }

    #[test]
    fn what_its_format_does_not_know_is_refused_in_it_too() {
        let with = |spoil: &dyn Fn(&mut Value)| {
            let mut plan: Value = serde_json::from_slice(STORED).unwrap();
            spoil(&mut plan);
            Plan::from_bytes(&serde_json::to_vec(&plan).unwrap()).is_ok()
        };
        assert!(with(&|_| ()));
        assert!(!with(
            &|plan| plan["interfaces"][0]["observing"] = "everything".into()
        ));
        assert!(!with(&|plan| plan["interfaces"][0]["shiny"] = true.into()));
        assert!(!with(&|plan| drop(
            plan["interfaces"][0]
                .as_object_mut()
                .unwrap()
                .remove("enforcement")
        )));
        assert!(!with(&|plan| plan["interfaces"] = 7.into()));
        assert!(!with(&|plan| plan["rules"][0]["shiny"] = true.into()));
    }
}
