"""What the operator's and the site's console share: who may sign in, sessions, the frame of a page, and how it is served."""
