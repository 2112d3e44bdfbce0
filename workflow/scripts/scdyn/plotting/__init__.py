"""Tables to figures and pages; nothing else imports matplotlib."""
