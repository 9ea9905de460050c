"""The report of an ablation: tables, figures, pictures and one page, from results.json and the stored images."""
