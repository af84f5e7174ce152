//! Holdfast under simulation: clusters, faults, checkers, reports.
