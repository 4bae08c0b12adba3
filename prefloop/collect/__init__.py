"""Where people speak: ranking, rating, flagging and editing answers in a browser, and the service behind it. No torch here."""
