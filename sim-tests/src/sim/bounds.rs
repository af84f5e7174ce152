//! What servers say of their sizes stays within the limits they name (I20).

use super::trace;

/// Installs the check. A server tells its sizes about once a second and at every flush, in pairs:
/// the size, then its limit.
pub(super) fn install() {
    trace::check(|_, event| {
        if event.kind != "sizes" {
            return;
        }
        for pair in event.fields.chunks_exact(2) {
            let ((name, size), (_, limit)) = (pair[0], pair[1]);
            assert!(
                size <= limit,
                "I20: {}/{}: {name}: {size}, and the limit is {limit}",
                event.site.group,
                event.site.node
            );
        }
    });
}
