"""The admin's lists of messages: as quick for a hundred million rows as for a thousand."""
