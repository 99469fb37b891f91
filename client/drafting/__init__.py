"""What a drafting model learns from and is asked: texts without comparisons, sentences of labels, similar reports, prompts."""
