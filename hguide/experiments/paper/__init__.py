"""The papers' tables and figures: what is reported beside what is measured."""
