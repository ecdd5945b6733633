//! Label sets as messages have them.

use crate::{
    model::Labels,
    pb::thanos::{Label, ZLabelSet},
    prometheus::api::LabelMap,
};

/// A label set as it is.
pub(super) fn plain(labels: LabelMap) -> ZLabelSet {
    let labels = labels.into_iter().map(|(name, value)| Label { name, value });
    ZLabelSet {
        labels: labels.collect(),
    }
}

/// A label set with the `external` labels over it, without labels of an empty value. Without external labels it is left
/// as it is.
pub(super) fn with_external(mut labels: LabelMap, external: &Labels) -> ZLabelSet {
    if !external.is_empty() {
        let over = external
            .iter()
            .map(|label| (label.name.to_string(), label.value.to_string()));
        labels.extend(over);
        labels.retain(|_, value| !value.is_empty());
    }
    plain(labels)
}

/// A label set with the `external` labels under it: what it has of its own stays.
pub(super) fn over_external(mut labels: LabelMap, external: &Labels) -> ZLabelSet {
    for label in external.iter().filter(|label| !label.value.is_empty()) {
        let own = labels.entry(label.name.to_string());
        own.or_insert_with(|| label.value.to_string());
    }
    plain(labels)
}

/// The external labels themselves.
pub(super) fn external(labels: &Labels) -> ZLabelSet {
    let labels = labels.iter().map(|label| Label {
        name: label.name.to_string(),
        value: label.value.to_string(),
    });
    ZLabelSet {
        labels: labels.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_labels_win_and_empty_values_go() {
        let labels = || LabelMap::from([("b", "1"), ("job", "n"), ("void", "")].map(|(n, v)| (n.into(), v.into())));
        let show = |set: ZLabelSet| {
            let labels: Vec<String> = set
                .labels
                .iter()
                .map(|label| format!("{}={}", label.name, label.value))
                .collect();
            labels.join(",")
        };
        let over = Labels::from_pairs([("a", "x"), ("b", "2"), ("job", "")]);
        assert_eq!(show(with_external(labels(), &over)), "a=x,b=2");
        assert_eq!(show(with_external(labels(), &Labels::default())), "b=1,job=n,void=");
        assert_eq!(show(external(&over)), "a=x,b=2,job=");
        assert_eq!(show(over_external(labels(), &over)), "a=x,b=1,job=n,void=");
    }
}
