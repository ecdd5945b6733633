//! What a check of the bucket needs: removing what it has written, and whether unfinished uploads go by themselves.

use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule};

use super::{Store, errors, headers::Purpose};
use crate::objstore::{CanaryKey, Error, ErrorKind, Op};

/// The code of a bucket without rules.
const NO_RULES: &str = "NoSuchLifecycleConfiguration";

impl Store {
    /// Removes an object that a check has written.
    pub(super) async fn remove_canary(&self, canary: &CanaryKey) -> Result<(), Error> {
        let key = canary.as_str();
        let request = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .customize();
        let request = self.within_budget(request, Purpose::List, &self.retry_budget());
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => match self.sdk_error(Op::Delete, key, error) {
                error if error.kind == ErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Whether a rule that is in force, and reaches our keys, aborts unfinished uploads.
    pub(super) async fn clears_unfinished_uploads(&self) -> Option<bool> {
        let request = self
            .client
            .get_bucket_lifecycle_configuration()
            .bucket(&self.bucket)
            .customize();
        match self
            .within_budget(request, Purpose::List, &self.retry_budget())
            .send()
            .await
        {
            Ok(answer) => Some(answer.rules().iter().any(|rule| clears(rule, &self.prefix))),
            Err(error) if errors::code(&error) == Some(NO_RULES) => Some(false),
            Err(_) => None,
        }
    }
}

/// Whether a rule is in force and aborts unfinished uploads of all keys that begin with `prefix`.
#[expect(deprecated, reason = "old rules have their prefix beside the filter")]
fn clears(rule: &LifecycleRule, prefix: &str) -> bool {
    let filter = rule.filter();
    // Tags and sizes are those of objects.
    let is_of_all = filter.is_none_or(|filter| {
        let of_objects = filter.tag().is_some() || filter.and().is_some();
        !of_objects && filter.object_size_greater_than().is_none() && filter.object_size_less_than().is_none()
    });
    let begins = filter.and_then(|filter| filter.prefix()).or(rule.prefix());
    let begins = begins.unwrap_or_default();
    rule.status() == &ExpirationStatus::Enabled
        && rule.abort_incomplete_multipart_upload().is_some()
        && is_of_all
        && prefix.starts_with(begins)
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{AbortIncompleteMultipartUpload, LifecycleExpiration, LifecycleRuleFilter};

    use super::*;

    #[test]
    fn only_a_rule_in_force_that_reaches_all_keys_clears_uploads_away() {
        let rule = |status: ExpirationStatus, begins: &str| {
            let filter = LifecycleRuleFilter::builder().prefix(begins).build();
            LifecycleRule::builder().status(status).filter(filter)
        };
        let abort = AbortIncompleteMultipartUpload::builder()
            .days_after_initiation(3)
            .build();
        for (status, begins, prefix, expected) in [
            (ExpirationStatus::Enabled, "", "", true),
            (ExpirationStatus::Enabled, "", "metrics/", true),
            (ExpirationStatus::Enabled, "metrics/", "metrics/", true),
            (ExpirationStatus::Enabled, "metrics/", "", false),
            (ExpirationStatus::Enabled, "logs/", "metrics/", false),
            (ExpirationStatus::Disabled, "", "", false),
        ] {
            let rule = rule(status, begins).abort_incomplete_multipart_upload(abort.clone());
            assert_eq!(clears(&rule.build().unwrap(), prefix), expected, "{begins} {prefix}");
        }
        let expires = rule(ExpirationStatus::Enabled, "").expiration(LifecycleExpiration::builder().days(3).build());
        assert!(!clears(&expires.build().unwrap(), ""));
        let large = LifecycleRuleFilter::builder().object_size_greater_than(1).build();
        let large = LifecycleRule::builder().status(ExpirationStatus::Enabled).filter(large);
        assert!(!clears(
            &large.abort_incomplete_multipart_upload(abort).build().unwrap(),
            ""
        ));
    }
}
