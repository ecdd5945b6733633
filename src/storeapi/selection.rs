//! What a request selects: its matchers, of which those on external labels are evaluated here.
//!
//! A matcher on an external label is never sent to Prometheus, which may store other values under the same name: the
//! answer carries the external label's value, whatever is stored.

use tonic::Status;

use super::patterns::{Condition, Patterns};
use crate::{
    model::{Labels, Matcher, matcher::Op},
    pb::thanos::{LabelMatcher, label_matcher::Type},
};

/// What is left to ask Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// An external label contradicts: the answer is empty.
    Nothing,
    /// These matchers; none at all selects everything.
    Matching(Vec<Matcher>),
}

/// Settles the matchers on `external` labels. One with an empty value is no label for a matcher.
///
/// # Errors
/// `InvalidArgument`: a matcher of an unknown type, a pattern that Go refuses, or one on an external label that cannot be
/// used here.
pub async fn select(patterns: &Patterns, matchers: Vec<LabelMatcher>, external: &Labels) -> Result<Selection, Status> {
    let condition = |matcher| {
        let matcher = read(matcher)?;
        let value = external.get(&matcher.name).filter(|value| !value.is_empty());
        let value = value.map(str::to_owned);
        Ok(Condition { matcher, value })
    };
    let conditions = matchers.into_iter().map(condition).collect::<Result<_, Status>>()?;
    let evaluated = patterns.evaluate(conditions).await?;
    if evaluated.holds.contains(&false) {
        return Ok(Selection::Nothing);
    }
    let left = evaluated
        .conditions
        .into_iter()
        .filter(|condition| condition.value.is_none());
    Ok(Selection::Matching(left.map(|condition| condition.matcher).collect()))
}

/// Reads one matcher of a request.
///
/// # Errors
/// `InvalidArgument`: an unknown type.
pub fn read(matcher: LabelMatcher) -> Result<Matcher, Status> {
    let op = match Type::try_from(matcher.r#type) {
        Ok(Type::Eq) => Op::Equal,
        Ok(Type::Neq) => Op::NotEqual,
        Ok(Type::Re) => Op::Regex,
        Ok(Type::Nre) => Op::NotRegex,
        Err(_) => {
            let text = format!("unrecognized label matcher type {}", matcher.r#type);
            return Err(Status::invalid_argument(text));
        }
    };
    Ok(Matcher::new(op, matcher.name, matcher.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::BlockingPool;

    fn asked(op: Type, name: &str, value: &str) -> LabelMatcher {
        LabelMatcher {
            r#type: op.into(),
            name: name.into(),
            value: value.into(),
        }
    }

    fn external() -> Labels {
        Labels::from_pairs([("cluster", "eu"), ("empty", "")])
    }

    async fn select(matchers: &[LabelMatcher]) -> Result<Selection, Status> {
        super::select(&Patterns::new(BlockingPool::new(1)), matchers.to_vec(), &external()).await
    }

    #[tokio::test]
    async fn external_labels_are_settled_here_and_the_rest_keeps_its_order() {
        let matchers = [
            asked(Type::Re, "job", "n.*"),
            asked(Type::Neq, "cluster", "us"),
            asked(Type::Re, "cluster", "e."),
            asked(Type::Eq, "empty", "x"),
            asked(Type::Eq, "__name__", "up"),
        ];
        let Selection::Matching(left) = select(&matchers).await.unwrap() else {
            panic!("nothing contradicts");
        };
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        assert_eq!(left, [r#"job=~"n.*""#, r#"empty="x""#, r#"__name__="up""#]);
    }

    #[tokio::test]
    async fn a_contradiction_is_an_empty_answer_and_a_bad_matcher_is_an_error_even_then() {
        let no = asked(Type::Eq, "cluster", "us");
        assert_eq!(select(std::slice::from_ref(&no)).await.unwrap(), Selection::Nothing);
        let pattern = asked(Type::Nre, "cluster", "e.");
        assert_eq!(select(&[pattern]).await.unwrap(), Selection::Nothing);
        let unknown = LabelMatcher {
            r#type: 7,
            ..asked(Type::Eq, "job", "x")
        };
        let error = select(&[no.clone(), unknown]).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert_eq!(error.message(), "unrecognized label matcher type 7");
        for name in ["cluster", "job"] {
            let pattern = asked(Type::Re, name, "e(");
            let error = select(&[no.clone(), pattern]).await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument);
            assert!(error.message().starts_with("error parsing regexp: "), "{error}");
        }
    }
}
