# Starts the agent anew, and says how its unit is until nobody listens any more.
lock 1
systemctl daemon-reload
systemctl reset-failed "$unit" 2> /dev/null
systemctl enable --quiet "$unit" 2> /dev/null || say failed enable
if said=$(systemctl restart "$unit" 2>&1); then say started; else say failed "$(line "$said")"; exit 1; fi
exec 9>&-
while say unit "$(show ActiveState)" "$(show NRestarts)"; do sleep 0.5; done
