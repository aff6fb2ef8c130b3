"""Label smoothing (Szegedy et al. 2016): a tenth of the target goes to all classes alike."""

smoothed_loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original', loss_weight=1.0)
