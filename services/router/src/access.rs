//! Who asks, and what holds for them: the tenant of a key, or the one that a header names where no keys are used.

use std::collections::BTreeMap;
use std::sync::Arc;

use equipoise_openai::ErrorResponse;
use equipoise_scheduler::TenantSettings;
use equipoise_types::Timestamp;
use http::{HeaderMap, header};

use crate::headers;
use crate::keys::KeyRing;
use crate::limits::Meter;
use crate::proxy::AUTO;

/// A tenant with settings.
#[derive(Debug)]
pub(crate) struct Tenant {
    name: String,
    settings: TenantSettings,
    meter: Option<Meter>,
}

impl Tenant {
    fn new(name: &str, settings: &TenantSettings) -> Self {
        Self {
            name: name.to_owned(),
            meter: Meter::new(settings.requests_per_minute, settings.tokens_per_minute),
            settings: settings.clone(),
        }
    }

    #[cfg(test)]
    pub(crate) fn named(name: &str) -> Self {
        Self::new(name, &TenantSettings::default())
    }

    #[cfg(test)]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// All tenants with settings, and their keys.
#[derive(Debug, Default)]
pub(crate) struct Access {
    keys: KeyRing,
    tenants: BTreeMap<String, Arc<Tenant>>,
}

/// Who sent a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// Who pays.
    pub(crate) tenant: Option<String>,
    known: Option<Arc<Tenant>>,
    by_key: bool,
}

impl Access {
    pub(crate) fn new(settings: &BTreeMap<String, TenantSettings>) -> Self {
        let mut access = Self::default();
        for (name, settings) in settings {
            let tenant = Arc::new(Tenant::new(name, settings));
            for key in &settings.keys {
                access.keys.add(key.clone(), Arc::clone(&tenant));
            }
            access.tenants.insert(name.clone(), tenant);
        }
        access
    }

    /// True where every client needs a key.
    pub(crate) fn asks_for_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whose request this is.
    ///
    /// # Errors
    /// 401 where keys are used and there is none or an unknown one; 400 for a header that makes no sense.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Box<ErrorResponse>> {
        if self.asks_for_keys() {
            let tenant = bearer(headers).and_then(|key| self.keys.owner(key));
            let tenant = tenant.ok_or_else(|| Box::new(unknown_key(headers.contains_key(header::AUTHORIZATION))))?;
            return Ok(Caller {
                tenant: Some(tenant.name.clone()),
                known: Some(Arc::clone(tenant)),
                by_key: true,
            });
        }
        let tenant = headers::tenant(headers).map_err(|error| Box::new(error.into()))?;
        let known = tenant.as_ref().and_then(|name| self.tenants.get(name)).map(Arc::clone);
        Ok(Caller {
            tenant,
            known,
            by_key: false,
        })
    }
}

/// The key of an `Authorization: Bearer` header; more than one header is none.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (given.next(), given.next()) else {
        return None;
    };
    let (scheme, key) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Says nothing of the key, not even its length.
fn unknown_key(given: bool) -> ErrorResponse {
    ErrorResponse::unauthorized(if given {
        "The API key in the Authorization header is not known here."
    } else {
        "You didn't provide an API key. Send it in the Authorization header: `Authorization: Bearer sk-…`."
    })
}

impl Caller {
    /// Whether the key that came with the request is for this router: then no engine sees it.
    pub(crate) fn came_with_key(&self) -> bool {
        self.by_key
    }

    /// Whether it may see a model, `auto` included.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        let models = self.known.as_ref().map(|tenant| &tenant.settings.models);
        models.is_none_or(|models| models.is_empty() || model == AUTO || models.contains(model))
    }

    /// The value that its settings insist on for a label.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let tenant = self.known.as_ref()?;
        tenant.settings.labels.get(key).map(String::as_str)
    }

    /// 404, as OpenAI answers for a model that is not there for this key.
    ///
    /// # Errors
    /// The model is not among those that it may use.
    pub(crate) fn check_model(&self, model: &str) -> Result<(), Box<ErrorResponse>> {
        if self.may_use(model) {
            return Ok(());
        }
        let allowed = self.known.iter().flat_map(|tenant| &tenant.settings.models);
        let allowed = allowed.map(String::as_str).chain([AUTO]);
        Err(Box::new(ErrorResponse::model_not_found(model, allowed)))
    }

    /// Takes a request of so many tokens out of its limits.
    ///
    /// # Errors
    /// 429 where one is reached.
    pub(crate) fn reserve(&self, now: Timestamp, tokens: u64) -> Result<Option<Reservation>, Box<ErrorResponse>> {
        let Some(tenant) = self.known.as_ref() else {
            return Ok(None);
        };
        let Some(meter) = &tenant.meter else { return Ok(None) };
        meter.take(now, tokens)?;
        Ok(Some(Reservation {
            tenant: Arc::clone(tenant),
            tokens,
        }))
    }

    /// Says what is left of its limits.
    pub(crate) fn describe(&self, now: Timestamp, headers: &mut HeaderMap) {
        if let Some(meter) = self.known.as_ref().and_then(|tenant| tenant.meter.as_ref()) {
            meter.describe(now, headers);
        }
    }
}

/// Tokens that were taken out of a tenant's limit for a request. They stay taken unless it is settled.
#[derive(Debug)]
pub(crate) struct Reservation {
    tenant: Arc<Tenant>,
    tokens: u64,
}

impl Reservation {
    /// What the request came to.
    pub(crate) fn settle(self, now: Timestamp, spent: u64) {
        if let Some(meter) = &self.tenant.meter {
            meter.settle(now, self.tokens, spent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::new_key;
    use http::HeaderValue;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("a value"),
        )])
    }

    #[test]
    fn the_tenant_comes_from_the_key_and_not_from_the_header() {
        let key = new_key(false).expect("randomness");
        let settings = TenantSettings {
            keys: vec![key.hash.parse().expect("a hash")],
            models: ["small".to_owned()].into(),
            ..TenantSettings::default()
        };
        let access = Access::new(&BTreeMap::from([
            ("acme".to_owned(), settings),
            ("other".to_owned(), TenantSettings::default()),
        ]));
        let mut headers = with("authorization", &format!("Bearer {}", key.key));
        headers.insert("x-equipoise-tenant", HeaderValue::from_static("other"));
        let caller = access.caller(&headers).expect("known");
        assert_eq!(caller.tenant.as_deref(), Some("acme"));
        assert!(caller.may_use("small") && caller.may_use("auto") && !caller.may_use("large"));
        assert_eq!(caller.check_model("large").expect_err("not his").status, 404);
        for wrong in ["Bearer", "Bearer sk-eq-0", "Basic x", &key.key] {
            let error = access.caller(&with("authorization", wrong)).expect_err("unknown");
            assert_eq!((error.status, error.body.message.contains(&key.key)), (401, false));
        }
        assert_eq!(access.caller(&HeaderMap::new()).expect_err("none").status, 401);
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(access.caller(&headers).expect_err("two").status, 401);
    }

    #[test]
    fn without_keys_the_header_is_believed() {
        let access = Access::new(&BTreeMap::from([("acme".to_owned(), TenantSettings::default())]));
        let caller = access.caller(&with("x-equipoise-tenant", "acme")).expect("believed");
        assert_eq!(
            (caller.tenant.as_deref(), caller.came_with_key()),
            (Some("acme"), false)
        );
        assert_eq!(access.caller(&HeaderMap::new()).expect("anybody").tenant, None);
        assert_eq!(
            access
                .caller(&with("x-equipoise-tenant", "-"))
                .expect_err("no name")
                .status,
            400
        );
    }
}
