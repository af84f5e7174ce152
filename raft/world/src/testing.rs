//! For tests that run in both worlds.

/// True in the simulation: for tests of what it does not have, such as processes.
pub const SIMULATED: bool = cfg!(madsim);

/// Runs a test body on real tokio, or inside a fresh simulation seeded by `MADSIM_TEST_SEED`.
pub fn block_on_test<F: std::future::Future + 'static>(body: F) -> F::Output
where
    F::Output: 'static,
{
    #[cfg(not(madsim))]
    {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the test")
            .block_on(body)
    }
    #[cfg(madsim)]
    {
        let seed = std::env::var("MADSIM_TEST_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(1);
        madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default())
            .block_on(body)
    }
}
