"""Runs any model of a LazyConfig file: trains, resumes, evaluates, predicts, reports."""
